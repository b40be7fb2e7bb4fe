"""The features of a whole shard set as one file for NumPy: ``np.load("OUT.npz")``.

``features`` (n, R) float32 is r1 of the centred view; ``labels`` (n,) int64, -1 unlabelled; ``keys`` (n,) are the samples' names,
``splits`` (n,) theirs, and ``classes`` the names that labels stand for. Features go to the file as they are made, so that a set
need not fit into memory.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from amdim.engine.checkpoint import Checkpoint
from amdim.engine.precision import Precision
from amdim.errors import UsageError, UserError
from amdim.evaluation.feature_extractors import trained
from amdim.evaluation.features import represent
from amdim.pipeline import EvalLoader
from amdim.pipeline.augment.recipe_file import recipe_of
from amdim.pipeline.dataset import ShardedDataset
from amdim.shards.atomic import atomic
from amdim.shards.index import key, read_idx


@torch.no_grad()
def write_features(
    saved: Checkpoint, data: ShardedDataset, out: Path, precision: Precision, device: torch.device
) -> tuple[int, int]:
    """Writes ``out``, whole or not at all, and returns how many images and how many values each.

    Raises:
        UsageError: ``out`` is no name of such a file.
        UserError: a feature is not finite.
    """
    if out.suffix != ".npz" or out.is_dir():
        raise UsageError(f"--features {out}: name a file that ends in .npz")
    encoder = trained(saved)
    loader = EvalLoader(data, list(data.manifest.splits), recipe_of(saved.config), device=device)
    n, width = len(loader.store), encoder.config.embedding
    see = represent(encoder, precision, device)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: could not be written ({error.strerror}: {error.filename}); name another place") from error
    with atomic(out) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in about(loader).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
        with archive.open("features.npy", "w", force_zip64=True) as entry:
            head = {"descr": "<f4", "fortran_order": False, "shape": (n, width)}
            np.lib.format.write_array_header_1_0(entry, head)
            for x, _ in loader:
                r1 = see(x).float().cpu().numpy()
                if not np.isfinite(r1).all():
                    raise UserError(f"{saved.path}, on {data}: features are not finite; take an earlier --checkpoint")
                entry.write(r1.astype("<f4").tobytes())
    return n, width


def about(loader: EvalLoader) -> dict[str, np.ndarray]:
    """What is known of the samples without looking at them, in the loader's order."""
    splits = [split for split, each in loader.manifest.splits.items() for _ in range(each.samples)]
    keys = [key(entry) for shard in loader.store.shards for entry in read_idx(loader.root.idx(shard))]
    return {
        "labels": loader.store.labels,
        "keys": np.array(keys, np.str_),
        "splits": np.array(splits, np.str_),
        "classes": np.array(loader.manifest.classes, np.str_),
    }
