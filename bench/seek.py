"""How long until a run that continues has its batch?  python -m bench.seek

The order of an epoch as long as ImageNet's and the draws of a step late in it, as a loader makes them when it continues there.
Nothing is read: that does not depend on the step.
"""

from __future__ import annotations

import statistics

import numpy as np

from amdim.pipeline.augment.recipes import IMAGENET128
from amdim.pipeline.augment.view_params import sample_view_params
from amdim.pipeline.sampler import epoch_order
from bench.machine import describe, seconds

SAMPLES, SHARDS, BATCH, STEP = 1_281_167, 550, 256, 5_000
REPEATS = 7


def main() -> None:
    shard_sizes = [len(part) for part in np.array_split(np.arange(SAMPLES), SHARDS)]
    sizes = np.tile([500, 375], (SAMPLES, 1))

    def seek() -> None:
        rows = epoch_order(shard_sizes, 0, 3)[STEP * BATCH : (STEP + 1) * BATCH]
        sample_view_params(IMAGENET128, sizes[rows], 0, 3, STEP)

    times = seconds(seek, REPEATS)
    print(f"{describe()}\nstep {STEP:,} of an epoch of {SAMPLES:,} images in {SHARDS} shards, batches of {BATCH}: ", end="")
    print(f"median {statistics.median(times):.3f} s, slowest {max(times):.3f} s, n {REPEATS}")


if __name__ == "__main__":
    main()
