"""The masks of a split: which pixels of an image show its object, where a shard set knows."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from amdim.errors import UsageError
from amdim.pipeline.augment.recipes import Recipe
from amdim.pipeline.augment.view_params import center_view_params
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.sample_store import SampleStore
from amdim.pipeline.sampler import WINDOW
from amdim.pipeline.shard_schedule import ShardUse, working_set_bytes
from amdim.shards.index import mask_spans

SIDE = 64  # pixels at which segmentations are compared


def read_masks(root: Path | ShardedDataset, split: str, recipe: Recipe, count: int | None = None) -> Tensor:
    """The masks of a split's first ``count`` samples (all by default), in order, in the centred view: (n, SIDE, SIDE) bool.

    Raises:
        UsageError: some of them have none.
    """
    store = SampleStore(root, [split])
    boxes = center_view_params(recipe.centred(), store.sizes[:count]).box
    masks: list[np.ndarray] = []
    wanted = [shard for shard, start in zip(store.shards, store.starts, strict=False) if start < len(boxes)]
    store.set.expect(
        (ShardUse(shard, number, number) for number, shard in enumerate(wanted)), working_set_bytes(wanted, 1), WINDOW
    )
    for number, shard in enumerate(wanted):
        spans = mask_spans(store.set.idx(shard))[: len(boxes) - len(masks)]
        if not spans[:, 1].all():
            raise UsageError(f"{root}: its images have no masks to compare with; those of `python -m shards build shapes` do")
        store.set.reach(number)
        file = store.set.open(shard)
        for offset, size in spans:
            masks.append(seen(os.pread(file.fileno(), size, offset), boxes[len(masks)]))
    return torch.from_numpy(np.stack(masks))


def seen(mask: bytes, box: np.ndarray) -> np.ndarray:
    """The part of an encoded mask inside ``box`` (top, left, bottom, right): (SIDE, SIDE) bool."""
    top, left, bottom, right = map(float, box)
    picture = Image.open(BytesIO(mask)).resize((SIDE, SIDE), Image.Resampling.NEAREST, box=(left, top, right, bottom))
    return np.asarray(picture) > 0
