"""Whether a shard set is what its manifest says: checksums, indices against tar headers, and every image through DALI."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from amdim.errors import UserError
from amdim.shards import index, worker_pool
from amdim.shards.build import PARTS, REJECTED
from amdim.shards.images.dali_decoder import Decoder
from amdim.shards.index import IMAGE_SUFFIXES, INDEX_DTYPE, Entry, Member, key
from amdim.shards.manifest import FILE, IN_PLACE, Manifest, Shard, is_edited
from amdim.shards.sources.base import Rejected


@dataclass(frozen=True)
class _Job:
    tar: Path
    shard: Shard
    classes: int
    fast: bool
    rejected: frozenset[str] | None  # TAR/KEY of what is there, but not in the index; None in sets that were built


@dataclass(frozen=True)
class _Checked:
    faults: list[str]
    labelled: int


def verify(directory: Path, manifest: Manifest, *, fast: bool, workers: int, show: Callable[[int], None]) -> list[str]:
    """The faults found, a line each; none means whole. ``fast`` decodes nothing; ``show`` gets the samples done so far."""
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    rejected = _rejected(directory) if manifest.recipe.get(IN_PLACE) else None
    jobs = [_Job(directory / shard.file, shard, len(manifest.classes), fast, rejected) for shard in shards]
    checked: dict[Shard, _Checked] = {}
    worker_pool.run(_check_shard, jobs, workers, show, lambda number, result: checked.update({shards[number]: result}))
    faults = _about_manifest(directory, manifest) + _strangers(directory, manifest)
    for name, split in manifest.splits.items():
        found = [fault for shard in split.shards for fault in checked[shard].faults]
        labelled = sum(checked[shard].labelled for shard in split.shards)
        if not found and labelled != split.labelled:
            found = [f"{name}: {labelled:,} samples have a label, {FILE} says {split.labelled:,}"]
        faults += found
    return faults


def _rejected(directory: Path) -> frozenset[str]:
    """``TAR/KEY`` of the samples that are in tars of another maker, and not in the indices."""
    try:
        return frozenset(json.loads(line)["path"] for line in (directory / REJECTED).read_text().splitlines())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{directory / REJECTED}: unreadable ({error}); index the tars again with --overwrite") from None


def _about_manifest(directory: Path, manifest: Manifest) -> list[str]:
    faults = [f"{FILE}: edited since it was written"] if is_edited(directory) else []
    if manifest.rejected is None:
        return faults
    try:
        lines = (directory / REJECTED).read_bytes().count(b"\n")
    except OSError as error:
        return [*faults, f"{REJECTED}: {error.strerror}"]
    if lines != manifest.rejected:
        faults.append(f"{REJECTED}: {lines:,} lines, {FILE} says {manifest.rejected:,}")
    return faults


def _strangers(directory: Path, manifest: Manifest) -> list[str]:
    """Files with the names of shards that the manifest does not know."""
    tars = [Path(shard.file) for split in manifest.splits.values() for shard in split.shards]
    known = {FILE, REJECTED} | {tar.with_suffix(suffix).name for tar in tars for suffix in (".tar", ".idx", ".npy")}
    names = sorted(path.name for path in directory.iterdir())
    return [f"{name}: not named in {FILE}" for name in names if PARTS.fullmatch(name) and name not in known]


def _check_shard(job: _Job, tick: worker_pool.Tick) -> _Checked:
    if not job.tar.exists():
        return _Checked([f"{job.tar.name}: missing"], 0)
    try:
        return _check_inside(job, tick)
    except OSError as error:
        return _Checked([f"{job.tar.name}: {error.strerror}"], 0)


def _check_inside(job: _Job, tick: worker_pool.Tick) -> _Checked:
    tar = job.tar
    faults = _check_bytes(tar, job.shard)
    try:
        entries = index.scan(tar)
    except UserError as error:
        return _Checked([*faults, str(error)], 0)
    if job.rejected is not None:
        entries = [entry for entry in entries if f"{tar.name}/{key(entry)}" not in job.rejected]
    if len(entries) != job.shard.samples:
        faults.append(f"{tar.name}: {len(entries):,} samples, {FILE} says {job.shard.samples:,}")
    rows, damaged = _check_samples(job, entries, tick)
    faults += damaged + _check_idx(tar, entries) + _check_rows(tar, entries, rows)
    return _Checked(faults, int((rows["label"] != index.UNLABELLED).sum()))


def _check_bytes(tar: Path, shard: Shard) -> list[str]:
    size = tar.stat().st_size
    if size != shard.bytes:
        return [f"{tar.name}: {size:,} bytes, {FILE} says {shard.bytes:,}"]
    with tar.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256
    return [] if same else [f"{tar.name}: its SHA-256 is not the one in {FILE}"]


def _check_samples(job: _Job, entries: Sequence[Entry], tick: worker_pool.Tick) -> tuple[NDArray[np.void], list[str]]:
    """The rows the index ought to have (-1 where a sample does not tell), and the faults."""
    decoder = None if job.fast else Decoder()
    rows = np.full(len(entries), -1, INDEX_DTYPE)
    faults = []
    with job.tar.open("rb") as file:
        for number, entry in enumerate(entries):
            try:
                rows[number] = index.row(file, entry)
                if rows[number]["label"] >= job.classes:
                    raise ValueError(f"label {rows[number]['label']}, but there are {job.classes} classes")
                if decoder:
                    _check_images(file, _images(job, entry), decoder)
            except (UserError, Rejected, ValueError, OverflowError) as error:
                faults.append(f"{job.tar.name}, key {key(entry)}: {error}")
            tick()
    return rows, faults


def _images(job: _Job, entry: Entry) -> list[Member]:
    """All images of a sample that was built; of another maker's, which may hold anything, the one that is trained on."""
    if job.rejected is not None:
        return [index.image_of(entry)]
    return [member for member in entry if member.suffix.endswith(IMAGE_SUFFIXES)]


def _check_images(file: BinaryIO, images: Sequence[Member], decoder: Decoder) -> None:
    for member in images:
        decoder.check(index.read_member(file, member))


def _check_idx(tar: Path, entries: list[Entry]) -> list[str]:
    path = tar.with_suffix(".idx")
    try:
        same = index.read_idx(path) == entries
    except UserError as error:
        return [str(error)]
    return [] if same else [f"{path.name}: does not describe {tar.name}"]


def _check_rows(tar: Path, entries: Sequence[Entry], rows: NDArray[np.void]) -> list[str]:
    """The ``.npy`` against what the shard says: images that changed after they were indexed, and the first row that is wrong."""
    path = tar.with_suffix(".npy")
    try:
        stored = index.load_index(path)
    except UserError as error:
        return [str(error)]
    if len(stored) != len(rows):
        return [f"{path.name}: {len(stored):,} rows, {tar.name} has {len(rows):,} samples"]
    where = [name for name in rows.dtype.names or () if name != "crc"]
    wrong = np.flatnonzero(stored[where] != rows[where])
    faults = [
        f"{path.name}: {len(wrong)} rows differ from {tar.name}, first key {key(entries[i])}: {stored[i]}" for i in wrong[:1]
    ]
    changed = np.setdiff1d(np.flatnonzero(stored["crc"] != rows["crc"]), wrong)
    return faults + [f"{tar.name}, key {key(entries[i])}: the image has changed since it was indexed" for i in changed]
