"""The data sets ``build`` knows by name. Another one is a function here and a line in SOURCES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from amdim.errors import UsageError
from amdim.shards.manifest import DEFAULTS
from amdim.shards.shapes import renderer
from amdim.shards.sources import cifar, fashion_mnist, folder, imagenet, places205, stl10, webdataset
from amdim.shards.sources.base import Encoding, Source


@dataclass(frozen=True)
class Options:
    """What the command line says of a source; None or False where it says nothing."""

    seed: int
    src: Path | None = None
    size: int | None = None
    quality: int | None = None
    val: float | None = None
    unlabeled: bool = False
    rewrite: bool = False


def source(name: str, options: Options) -> Source:
    """The source called ``name``; raises UsageError for an unknown name or an option it has no use for."""
    if name not in SOURCES:
        raise UsageError(f"{name}: no such data set; known are {', '.join(sorted(SOURCES))}")
    make, meaningful = SOURCES[name]
    for option in ("src", "size", "quality", "val", "unlabeled", "rewrite"):
        if getattr(options, option) not in (None, False) and option not in meaningful:
            raise UsageError(f"--{option} makes no sense for {name}; leave it out")
    return make(options)


def _shapes(options: Options) -> Source:
    return renderer.source(options.seed)


def _fashion_mnist(options: Options) -> Source:
    return fashion_mnist.source(options.src)


def _cifar(name: str, options: Options) -> Source:
    return cifar.source(name, options.src)


def _stl10(options: Options) -> Source:
    return stl10.source(options.src)


def _imagenet(options: Options) -> Source:
    return imagenet.source(_required("imagenet", options, "the archives, folders or parquet files"), _encoding(options))


def _places205(options: Options) -> Source:
    return places205.source(_required("places205", options, "the images and their two tables"), _encoding(options))


def _folder(options: Options) -> Source:
    src = _required("folder", options, "the images")
    return folder.source(src, _encoding(options), options.seed, options.val, options.unlabeled)


def _webdataset(options: Options) -> Source:
    return webdataset.source(_required("webdataset", options, "the tars"), _encoding(options))


def _required(name: str, options: Options, what: str) -> Path:
    if options.src is None:
        raise UsageError(f"{name} needs --src, the directory that holds {what}")
    return options.src


def _encoding(options: Options) -> Encoding:
    size, quality = (
        DEFAULTS[name] if given is None else given for name, given in (("size", options.size), ("quality", options.quality))
    )
    return Encoding(int(size), int(quality))


PHOTOGRAPHS = frozenset({"src", "size", "quality"})

SOURCES: dict[str, tuple[Callable[[Options], Source], frozenset[str]]] = {
    "shapes": (_shapes, frozenset()),
    "fashion-mnist": (_fashion_mnist, frozenset({"src"})),
    "cifar10": (partial(_cifar, "cifar10"), frozenset({"src"})),
    "cifar100": (partial(_cifar, "cifar100"), frozenset({"src"})),
    "stl10": (_stl10, frozenset({"src"})),
    "imagenet": (_imagenet, PHOTOGRAPHS),
    "places205": (_places205, PHOTOGRAPHS),
    "webdataset": (_webdataset, PHOTOGRAPHS | {"rewrite"}),
    "folder": (_folder, PHOTOGRAPHS | {"val", "unlabeled"}),
}
