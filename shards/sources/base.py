"""What the writer asks of an image collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

TRAINING = ("train", "unlabeled")
UNLABELLED = -1


class Rejected(Exception):
    """A sample that cannot be stored; its text is the reason."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a source before it is read: the name that finds it there, and its class.

    ``place`` is where its bytes lie, in whatever numbers the source's ``read`` knows; ``fault`` is why it cannot be stored, if
    that was seen when it was listed: ``read`` raises it as Rejected.
    """

    path: str
    label: int = UNLABELLED
    place: tuple[int, ...] = ()
    fault: str = ""


class Samples(Protocol):
    """What has a length and takes an integer index: a list, or a ``Listing`` where there are millions."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


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
    ``recipe`` holds the options, besides seed and encoding, that change what is written; ``ignored`` counts the files that were
    seen and passed over, by their kind; ``note`` is a line for the person who builds.

    What cannot be read at random where it lies, such as a compressed archive, has ``unpack``: given a directory, which is removed
    when the set is finished, it puts there what it needs and returns ``read``. Until then ``read`` is ``unread``.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Samples]
    read: Callable[[Sample], Raw]
    encoding: Encoding | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    note: str = ""
    unpack: Callable[[Path], Callable[[Sample], Raw]] | None = None


def unread(sample: Sample) -> Raw:
    """Stands in for the ``read`` that ``unpack`` returns."""
    raise RuntimeError(f"{sample.path}: read before its archive was unpacked")
