"""Existing WebDataset tars to a shard set where they lie: indices and a manifest beside them, and not a byte of the tars changed.

What cannot be trained on as it is stays in its tar, but not in the indices: it is a line in ``rejected.jsonl``.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from amdim.errors import UsageError, UserError
from amdim.fileio import locked
from amdim.shards import build, index, manifest, worker_pool
from amdim.shards.atomic import atomic
from amdim.shards.build import Built
from amdim.shards.images.dali_decoder import Decoder
from amdim.shards.images.encode import store
from amdim.shards.index import INDEX_DTYPE, Entry
from amdim.shards.manifest import IN_PLACE, Manifest, Shard, Split
from amdim.shards.sources import webdataset
from amdim.shards.sources.base import TRAINING, UNLABELLED, Encoding, Rejected
from amdim.shards.tar_reader import read_bytes
from amdim.shards.writer import Rejection

AS_IT_IS = Encoding(size=0, quality=100)
MANY, SORTED = 3, 0.5  # classes, share of neighbours of one class: tars that seem to be sorted


@dataclass(frozen=True)
class _Job:
    split: str
    tar: Path


@dataclass(frozen=True)
class _Adopted:
    """A tar as indexed; ``shard`` is None if every sample was rejected, ``histogram`` is (3, 256) counts of its RGB values."""

    split: str
    shard: Shard | None
    labels: NDArray[np.int32]
    histogram: NDArray[np.int64]
    rejections: tuple[Rejection, ...]


def adopt(
    src: Path, *, workers: int | worker_pool.Team, max_rejected: float, overwrite: bool, show: Callable[[int], None]
) -> tuple[Built, str]:
    """Indexes the tars in ``src``, and returns a warning, if there is reason for one; ``show`` gets the number of tars done.

    Raises UsageError if there are none or another set stands there, UserError for a damaged tar or too many bad samples.
    """
    start = time.perf_counter()
    jobs = [_Job(split, tar) for split, tars in webdataset.splits(src).items() for tar in tars]
    recipe = {"source": "webdataset", IN_PLACE: True, "files": _fingerprint(jobs)}
    with locked(src, build.BUSY), build.full_disk(src):
        if found := _finished(src, recipe, overwrite):
            return Built(found, Counter(), 0.0, fresh=False), ""
        adopted: dict[int, _Adopted] = {}
        worker_pool.run(_adopt, jobs, workers, show, adopted.__setitem__)
        done = [adopted[number] for number in range(len(jobs))]
        reasons = build.save_rejections(src, (rejection for each in done for rejection in each.rejections))
        build.check_rejections(src, reasons, reasons.total() + sum(len(each.labels) for each in done), max_rejected)
        result = _manifest(src, recipe, done, reasons.total())
        manifest.save(result, src)
    return Built(result, reasons, time.perf_counter() - start, fresh=True), _warning(src, done)


def _fingerprint(jobs: Sequence[_Job]) -> str:
    names = "".join(f"{job.split}/{job.tar.name} {job.tar.stat().st_size}\n" for job in jobs)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _finished(src: Path, recipe: Mapping[str, Any], overwrite: bool) -> Manifest | None:
    """The set in ``src``, if it is of these tars; raises UsageError if it is of others, or was built and not indexed."""
    if not (src / manifest.FILE).exists():
        return None
    found = manifest.load(src)
    if not found.recipe.get(IN_PLACE):
        raise UsageError(f"{src}: a finished set of '{found.name}' already; there is nothing to index")
    if overwrite:
        return None
    if found.recipe != recipe:
        raise UsageError(f"{src}: its tars have changed since they were indexed; index them again with ARGS=--overwrite")
    return found


def _adopt(job: _Job, tick: worker_pool.Tick) -> _Adopted:
    entries, rows, rejections = [], [], []
    histogram = np.zeros(3 * 256, np.int64)
    decoder = Decoder()
    with job.tar.open("rb") as file:
        for entry in index.scan_any(job.tar):
            try:
                row, counts = _examine(job.tar, file, entry, decoder)
            except Rejected as error:
                rejections.append(Rejection(f"{job.tar.name}/{index.key(entry)}", str(error)))
            else:
                entries.append(entry)
                rows.append(row)
                histogram += counts
            tick(0)
    shard = _write_indices(job.tar, entries, np.array(rows, INDEX_DTYPE)) if rows else None
    tick()
    labels = np.array(rows, INDEX_DTYPE)["label"]
    return _Adopted(job.split, shard, labels, histogram.reshape(3, 256), tuple(rejections))


def _examine(tar: Path, file: BinaryIO, entry: Entry, decoder: Decoder) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """The row of a sample and the (768,) counts of its values; raises Rejected for one that cannot be used as it is."""
    if not all(character.isprintable() and character != " " for member in entry for character in member.name):
        raise Rejected("a blank or the like in its name, which DALI's index cannot hold; --rewrite gives it another")
    image, label = webdataset.labelled_image(file, entry)
    data = read_bytes(tar, image.offset, image.size)
    kept = store(data, AS_IT_IS)
    if kept.data is not data:
        raise Rejected("it would have to be encoded anew, for its format, orientation or transparency; --rewrite does that")
    pixels = kept.pixels
    decoder.check(data)
    row = (image.offset, image.size, label, *pixels.size, zlib.crc32(data))
    return row, np.array(pixels.convert("RGB").histogram(), np.int64)


def _write_indices(tar: Path, entries: list[Entry], rows: NDArray[np.void]) -> Shard:
    with atomic(tar.with_suffix(".idx")) as file:
        file.write(index.idx_text(entries).encode())
    with atomic(tar.with_suffix(".npy")) as file:
        np.save(file, rows, allow_pickle=False)
    with tar.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(tar.name, len(rows), tar.stat().st_size, digest)


def _manifest(src: Path, recipe: dict[str, Any], adopted: Sequence[_Adopted], rejected: int) -> Manifest:
    classes = webdataset.class_names(src, max(int(each.labels.max(initial=UNLABELLED)) for each in adopted))
    found: dict[str, list[_Adopted]] = {}
    for each in adopted:
        found.setdefault(each.split, []).append(each)
    histogram = np.sum([each.histogram for each in adopted if each.split in TRAINING], axis=0)
    splits = {split: _split(parts) for split, parts in found.items()}
    if empty := [name for name, split in splits.items() if not split.samples]:
        raise UserError(f"{src}: not one sample of {empty[0]} can be used; {src / build.REJECTED} says why")
    return Manifest("webdataset", classes, *build.moments(histogram), splits, recipe, build.tools(), rejected)


def _split(parts: Sequence[_Adopted]) -> Split:
    labelled = sum(int((each.labels != UNLABELLED).sum()) for each in parts)
    return Split(sum(len(each.labels) for each in parts), labelled, tuple(each.shard for each in parts if each.shard))


def _warning(src: Path, adopted: Sequence[_Adopted]) -> str:
    """Whether the tars seem to be sorted by class: batches would then hold few classes, and learning suffers."""
    labels = [each.labels for each in adopted if each.split == "train"]
    same = np.concatenate([part[1:] == part[:-1] for part in labels] or [[]])
    if len(np.unique(np.concatenate(labels))) < MANY or np.mean(same) < SORTED:
        return ""
    return f"warning: {src}: its tars seem to be sorted by class; a batch would hold few of them, and --rewrite shuffles"
