"""The masks of a split: which pixels of an image show its object, where a shard set knows."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from errors import UsageError
from pipeline.draws import centre_view
from pipeline.recipes import Recipe
from pipeline.store import Store
from shards import manifest as manifests
from shards.index import mask_spans

SIDE = 64  # pixels at which segmentations are compared


def read_masks(root: Path, split: str, recipe: Recipe, count: int | None = None) -> Tensor:
    """The masks of a split's first ``count`` samples (all by default), in order, in the centred view: (n, SIDE, SIDE) bool.

    Raises:
        UsageError: some of them have none.
    """
    store = Store(root, manifests.load(root), [split])
    boxes = centre_view(recipe.centred(), store.sizes[:count]).box
    masks: list[np.ndarray] = []
    for name in store.files:
        spans = mask_spans((root / name).with_suffix(".idx"))[: len(boxes) - len(masks)]
        if not spans[:, 1].all():
            raise UsageError(f"{root}: its images have no masks to compare with; those of `python -m shards build shapes` do")
        with (root / name).open("rb") as file:
            for offset, size in spans:
                file.seek(offset)
                masks.append(seen(file.read(size), boxes[len(masks)]))
    return torch.from_numpy(np.stack(masks))


def seen(mask: bytes, box: np.ndarray) -> np.ndarray:
    """The part of an encoded mask inside ``box`` (top, left, bottom, right): (SIDE, SIDE) bool."""
    top, left, bottom, right = map(float, box)
    picture = Image.open(BytesIO(mask)).resize((SIDE, SIDE), Image.Resampling.NEAREST, box=(left, top, right, bottom))
    return np.asarray(picture) > 0
