"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747): 28×28 gray, 60,000 to train and 10,000 to test, ten classes.

The four IDX files come from ``--src``, else from Debian's package dataset-fashion-mnist, else from their published address.
"""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amdim.errors import UsageError, UserError
from amdim.shards.sources.base import Raw, Sample, Source
from amdim.shards.sources.published_files import Published, cache, fetch

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "val": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # compressed anew, so the published checksums below do not apply to it
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
UBYTE = 8  # IDX's type code for unsigned bytes


def source(src: Path | None) -> Source:
    """The set from ``src`` or wherever it is found; raises UsageError if ``src`` lacks a file, UserError if nothing is found."""
    splits, images = {}, {}
    for split, (pictures, labels) in FILES.items():
        images[split] = _find(pictures, src)
        numbers = load_idx(_find(labels, src)).tolist()
        if len(numbers) != len(load_idx(images[split])):
            raise UserError(f"{images[split]}: {len(load_idx(images[split]))} images but {len(numbers)} labels")
        splits[split] = [Sample(f"{split}/{index}", label) for index, label in enumerate(numbers)]
    return Source("fashion-mnist", CLASSES, splits, partial(_read, images))


@lru_cache
def load_idx(path: Path) -> NDArray[np.uint8]:
    """An array of unsigned bytes from an IDX file, gzipped or plain; raises UserError when it is damaged."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        if data[:3] != bytes((0, 0, UBYTE)):
            raise ValueError("not an IDX file of unsigned bytes")
        rank = data[3]
        shape = np.frombuffer(data, ">i4", rank, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, IndexError) as error:
        raise UserError(f"{path}: damaged ({error}); fetch it again") from None


def _read(images: dict[str, Path], sample: Sample) -> Raw:
    split, _, index = sample.path.partition("/")
    return Raw(load_idx(images[split])[int(index)])


def _find(name: str, src: Path | None) -> Path:
    for directory in [src] if src else [DEBIAN, _downloads()]:
        for path in (directory / f"{name}.gz", directory / name):
            if path.is_file():
                return path
    if src:
        raise UsageError(f"{src}: no {name}.gz here; --src is the directory with the four IDX files")
    return _download(name)


def _download(name: str) -> Path:
    otherwise = (
        "without a network, `apt install dataset-fashion-mnist`, or fetch the four files elsewhere and pass SRC=/their/directory"
    )
    return fetch(Published(f"{ADDRESS}/{name}.gz", MD5[name]), _downloads(), otherwise)


def _downloads() -> Path:
    return cache("fashion-mnist")
