"""Takes batches of a shard set, beginning anew now and then, and prints what it holds after each part.

Arguments: the set, the back-end, how many parts, and batches a part. A process of its own, so that nothing else's memory counts.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from amdim.pipeline import EvalLoader, TwoViewLoader
from amdim.pipeline.augment.recipes import SHAPES64

RECIPE = replace(SHAPES64, size=16, resize=16)


def main(root: Path, pixels: str, parts: int, batches: int) -> None:
    torch.set_num_threads(1)
    # On a CPU, DALI's graph takes five times as long for exact colours.
    recipe = replace(RECIPE, color="fused" if pixels == "dali" else "exact")
    loader = TwoViewLoader(root, ["train"], recipe, 2, threads=2, pixels=pixels, prefetch=2)
    for _ in range(parts):
        for _ in islice(endless(loader), batches):
            pass
        loader.load_state_dict(loader.state_dict())  # drops what makes the views
        for _ in EvalLoader(root, ["val"], recipe, 4, pixels=pixels):
            pass
        gc.collect()
        print(json.dumps(held()), flush=True)


def endless(loader: TwoViewLoader):
    while True:
        yield from loader


def held() -> dict[str, int]:
    """Bytes in memory, file descriptors and threads of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    count = {name: len(list(Path("/proc/self", name).iterdir())) for name in ("fd", "task")}
    return {"memory": pages * os.sysconf("SC_PAGE_SIZE"), "files": count["fd"], "threads": count["task"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
