"""What the writer asks of an image collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAINING = ("train", "unlabeled")
UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a source before it is read: the name that finds it there, and its class."""

    path: str
    label: int = UNLABELLED


@dataclass(frozen=True)
class Raw:
    """A sample as read: an encoded file in any format Pillow reads, or a uint8 array, which is stored lossless.

    An array ``image`` is (H, W) gray or (H, W, 3) RGB; ``mask`` is (H, W), 255 on the object and 0 elsewhere.
    """

    image: bytes | NDArray[np.uint8]
    mask: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Encoding:
    """How files are stored: shorter side shrunk to ``size`` pixels (0: never), re-encoded as JPEG of ``quality``."""

    size: int
    quality: int


@dataclass(frozen=True)
class Source:
    """A collection: the samples of each split, and the function that reads one (and raises Rejected for a bad one).

    Only the samples of one shard and ``read`` travel to a worker, so ``read`` is a module's function or a ``partial`` of one.
    The samples need not be a list: whatever has a length and takes an integer index will do, so the names of 14 million
    images may stay in an array. ``recipe`` holds the options, besides seed and encoding, that change what is written;
    ``ignored`` counts the files that were seen and passed over.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Sample]]
    read: Callable[[Sample], Raw]
    encoding: Encoding | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ignored: int = 0
