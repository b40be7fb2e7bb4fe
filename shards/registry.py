"""The data sets ``build`` knows by name. Another one is a function here and a line in SOURCES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from errors import UsageError

from . import fashion_mnist, folder, shapes
from .manifest import DEFAULTS
from .source import Encoding, Source


@dataclass(frozen=True)
class Options:
    """What the command line says of a source; None or False where it says nothing."""

    seed: int
    src: Path | None = None
    size: int | None = None
    quality: int | None = None
    val: float | None = None
    unlabeled: bool = False


def source(name: str, options: Options) -> Source:
    """The source called ``name``; raises UsageError for an unknown name or an option it has no use for."""
    if name not in SOURCES:
        raise UsageError(f"{name}: no such data set; known are {', '.join(sorted(SOURCES))}")
    make, meaningful = SOURCES[name]
    for option in ("src", "size", "quality", "val", "unlabeled"):
        if getattr(options, option) not in (None, False) and option not in meaningful:
            raise UsageError(f"--{option} makes no sense for {name}; leave it out")
    return make(options)


def _shapes(options: Options) -> Source:
    return shapes.source(options.seed)


def _fashion_mnist(options: Options) -> Source:
    return fashion_mnist.source(options.src)


def _folder(options: Options) -> Source:
    if options.src is None:
        raise UsageError("folder needs --src, the directory that holds the images")
    size, quality = (
        DEFAULTS[name] if given is None else given for name, given in (("size", options.size), ("quality", options.quality))
    )
    encoding = Encoding(int(size), int(quality))
    return folder.source(options.src, encoding, options.seed, options.val, options.unlabeled)


SOURCES: dict[str, tuple[Callable[[Options], Source], frozenset[str]]] = {
    "shapes": (_shapes, frozenset()),
    "fashion-mnist": (_fashion_mnist, frozenset({"src"})),
    "folder": (_folder, frozenset({"src", "size", "quality", "val", "unlabeled"})),
}
