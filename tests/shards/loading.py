"""What a finished set must stand: it is whole by its own check, and a loader makes batches of it."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from amdim.pipeline.augment.recipes import CIFAR32
from amdim.pipeline.loaders import TwoViewLoader
from amdim.shards import index, manifest
from amdim.shards.verify import verify


def is_trainable(out: Path, splits: tuple[str, ...] = ("train",), batch: int = 4) -> bool:
    found = manifest.load(out)
    assert verify(out, found, fast=False, workers=1, show=lambda _: None) == []
    loader = TwoViewLoader(out, splits, CIFAR32, batch, threads=1)
    views = next(iter(loader))
    labels = set(range(len(found.classes)))
    if any(found.splits[split].labelled < found.splits[split].samples for split in splits):
        labels.add(index.UNLABELLED)
    assert set(views.label.tolist()) <= labels
    assert views.x1.shape == (batch, 3, 32, 32)
    return bool(torch.isfinite(views.x1).all() and torch.isfinite(views.x2).all())


def stored(out: Path, split: str = "train") -> dict[str, tuple[int, bytes]]:
    """Label and encoded image by the path a sample has in its source."""
    found = {}
    for shard in manifest.load(out).splits[split].shards:
        rows = index.load_index((out / shard.file).with_suffix(".npy"))
        data = (out / shard.file).read_bytes()
        with tarfile.open(out / shard.file) as archive:
            paths = [json.load(archive.extractfile(info))["path"] for info in archive if info.name.endswith(".json")]
        for path, row in zip(paths, rows, strict=True):
            found[path] = int(row["label"]), data[row["offset"] : row["offset"] + row["size"]]
    return found


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def rejected(out: Path) -> dict[str, str]:
    """Reason by path, as ``rejected.jsonl`` has them."""
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    return {line["path"]: line["reason"] for line in lines}
