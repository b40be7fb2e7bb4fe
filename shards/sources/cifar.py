"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32×32 RGB, 50,000 to train and 10,000 to test, 10 or 100 classes.

The binary archives hold records of a label (CIFAR-100: coarse label, fine label) and 3,072 pixels, red before green before blue.
The Python archives hold the same pixels pickled, and are read by ``pickled``. Either is unpacked to plain pixels while it builds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amdim.errors import UsageError, UserError
from amdim.shards.atomic import atomic
from amdim.shards.disk_space import check_space
from amdim.shards.sample_list import Listing
from amdim.shards.sources import cifar_pickle
from amdim.shards.sources.base import UNLABELLED, Raw, Sample, Source, unread
from amdim.shards.sources.fixed_records import Layout, files_of, locate, read_record
from amdim.shards.sources.published_files import Published, cache, fetch
from amdim.shards.tar_reader import damage_told

PIXELS = 3 * 32 * 32
LAYOUT = Layout((3, 32, 32), (1, 2, 0))
ADDRESS = "https://www.cs.toronto.edu/~kriz/"
# As listed at ADDRESS + cifar.html.
BINARY_MD5 = {"cifar10": "c32a1d4ab5d03f1284b67883e8d87530", "cifar100": "03b5dce01913d631647c71ecec9e9cb8"}
SLACK = 2**22  # bytes that labels, names and the like take beside the pixels of a file, at most

Batch = tuple[NDArray[np.int64], NDArray[np.uint8]]  # labels (images,), pixels (images, PIXELS)


class Form(NamedTuple):
    """A way a set is published: its archive, the directory in it, the files by split, the file of names; what reads either."""

    archive: str
    directory: str
    files: dict[str, tuple[str, ...]]
    names_file: str
    batch: Callable[[bytes], Batch]
    names: Callable[[bytes], list[str]]

    @property
    def all_files(self) -> tuple[str, ...]:
        return tuple(name for files in self.files.values() for name in files)


def source(name: str, src: Path | None) -> Source:
    """From ``src``, else from the published address; raises UsageError if ``src`` lacks the set, UserError if it is damaged."""
    form, path = _find(name, src) if src else (FORMS[name][0], _download(name))
    batches, classes = _read_all(form, path)
    if missing := [file for file in form.all_files if file not in batches]:
        raise UserError(f"{path}: no {missing[0]} in it; fetch it again")
    splits = {split: _list(form, files, batches, len(classes)) for split, files in form.files.items()}
    recipe = {"files": " ".join(listing.fingerprint() for listing in splits.values())}
    note = f"{name}: {path}"
    return Source(name, classes, splits, unread, None, recipe, note=note, unpack=partial(_unpack, form, path))


def _find(name: str, src: Path) -> tuple[Form, Path]:
    for form in FORMS[name]:
        if path := locate(src, form.archive, form.directory, form.all_files):
            return form, path
    looked = " or ".join(form.archive for form in FORMS[name])
    raise UsageError(f"{src}: no {looked} here, nor what it unpacks to; --src is that file, or the directory that holds it")


def _download(name: str) -> Path:
    archive = FORMS[name][0].archive
    return fetch(
        Published(ADDRESS + archive, BINARY_MD5[name]), cache(name), f"fetch it elsewhere and pass SRC=/path/to/{archive}"
    )


def _read_all(form: Form, path: Path) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """The labels by file, and the classes."""
    labels: dict[str, NDArray[np.int64]] = {}
    classes: tuple[str, ...] = ()
    for name, data in _contents(form, path):
        try:
            if name == form.names_file:
                classes = tuple(form.names(data))
            else:
                labels[name] = form.batch(data)[0]
        except ValueError as error:
            raise UserError(f"{path}: {name} is damaged ({error}); fetch it again") from None
    if not classes:
        raise UserError(f"{path}: no {form.names_file} in it; fetch it again")
    return labels, classes


def _list(form: Form, files: Sequence[str], labels: dict[str, NDArray[np.int64]], classes: int) -> Listing:
    """A sample's place is (number of its file, offset of its pixels in the unpacked file)."""
    listing = Listing(width=2)
    for name in files:
        for row, label in enumerate(labels[name].tolist()):
            known = 0 <= label < classes
            fault = "" if known else f"its label {label} is none of {classes} classes"
            place = (form.all_files.index(name), row * PIXELS)
            listing.add(f"{name}/{row}", label if known else UNLABELLED, place, fault)
    return listing


def _unpack(form: Form, path: Path, directory: Path) -> Callable[[Sample], Raw]:
    check_space(directory.parent, sum(_longest(form).values()))
    directory.mkdir(exist_ok=True)
    for name, data in _contents(form, path):
        if name != form.names_file:
            with atomic(directory / name) as file:
                file.write(form.batch(data)[1].tobytes())
    return partial(read_record, directory, form.all_files, LAYOUT)


def _contents(form: Form, path: Path) -> Iterator[tuple[str, bytes]]:
    with damage_told(path):
        for found in files_of(path, _longest(form)):
            yield found.name, found.content.read(found.size)


def _longest(form: Form) -> dict[str, int]:
    """The length no file of a real archive exceeds."""
    images = {name: 50_000 // len(form.files["train"]) for name in form.files["train"]} | dict.fromkeys(form.files["val"], 10_000)
    return {name: count * PIXELS + SLACK for name, count in images.items()} | {form.names_file: SLACK}


def _binary_batch(header: int, data: bytes) -> Batch:
    if not data or len(data) % (header + PIXELS):
        raise ValueError(f"{len(data):,} bytes are no whole number of records")
    records = np.frombuffer(data, np.uint8).reshape(-1, header + PIXELS)
    return records[:, header - 1].astype(np.int64), records[:, header:]


def _pickled_batch(key: bytes, data: bytes) -> Batch:
    found = cifar_pickle.load(data)
    labels, pixels = found.get(key), found.get(b"data")
    if (
        not isinstance(pixels, cifar_pickle.Array)
        or not isinstance(labels, list)
        or not all(type(each) is int for each in labels)
    ):
        raise ValueError(f"its pickle lacks data or {key.decode()}")
    if pixels.values.shape != (len(labels), PIXELS):
        raise ValueError(f"{len(labels)} labels, and pixels of shape {pixels.values.shape}")
    return np.array(labels, np.int64), pixels.values


def _text_names(data: bytes) -> list[str]:
    return data.decode().split()


def _pickled_names(key: bytes, data: bytes) -> list[str]:
    names = cifar_pickle.load(data).get(key)
    if not isinstance(names, list):
        raise ValueError(f"its pickle lacks {key.decode()}")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


TEN, HUNDRED = "cifar-10", "cifar-100"
FIVE = tuple(f"data_batch_{number}" for number in range(1, 6))
FORMS = {
    "cifar10": (
        Form(
            f"{TEN}-binary.tar.gz",
            f"{TEN}-batches-bin",
            {"train": tuple(f"{name}.bin" for name in FIVE), "val": ("test_batch.bin",)},
            "batches.meta.txt",
            partial(_binary_batch, 1),
            _text_names,
        ),
        Form(
            f"{TEN}-python.tar.gz",
            f"{TEN}-batches-py",
            {"train": FIVE, "val": ("test_batch",)},
            "batches.meta",
            partial(_pickled_batch, b"labels"),
            partial(_pickled_names, b"label_names"),
        ),
    ),
    "cifar100": (
        Form(
            f"{HUNDRED}-binary.tar.gz",
            f"{HUNDRED}-binary",
            {"train": ("train.bin",), "val": ("test.bin",)},
            "fine_label_names.txt",
            partial(_binary_batch, 2),
            _text_names,
        ),
        Form(
            f"{HUNDRED}-python.tar.gz",
            f"{HUNDRED}-python",
            {"train": ("train",), "val": ("test",)},
            "meta",
            partial(_pickled_batch, b"fine_labels"),
            partial(_pickled_names, b"fine_label_names"),
        ),
    ),
}
