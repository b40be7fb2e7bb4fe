"""One shard: every sample is read, decoded, encoded where it has to be, and added to a tar file with fixed headers."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amdim.shards.atomic import atomic
from amdim.shards.images.encode import Stored, encode_png, store
from amdim.shards.index import write_index
from amdim.shards.manifest import Shard
from amdim.shards.sources.base import UNLABELLED, Encoding, Raw, Rejected, Sample
from amdim.shards.worker_pool import Tick

Files = dict[str, bytes]  # contents by suffix
INDICES = (".idx", ".npy")


@dataclass(frozen=True)
class Job:
    """A shard to write: its path, its samples in order, the key of the first of them, and what an earlier build noted of it."""

    split: str
    path: Path
    first_key: int
    samples: Sequence[Sample]
    read: Callable[[Sample], Raw]
    encoding: Encoding | None
    noted: Written | None = None


@dataclass(frozen=True)
class Rejection:
    """A sample that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Written:
    """A shard as written (None if every sample was rejected); ``histogram`` is (3, 256) counts of its RGB values.

    ``indices`` are the SHA-256 of its two indices; ``dim`` counts images of 16 bits that use little of their range.
    """

    name: str
    split: str
    shard: Shard | None
    labelled: int
    histogram: NDArray[np.int64]
    rejections: tuple[Rejection, ...]
    indices: list[str] = field(default_factory=list)
    dim: int = 0


def write_shard(job: Job, tick: Tick) -> Written:
    """Writes ``job.path`` and its two indices, each whole or not at all, unless they stand there as they were noted."""
    if job.noted and _stands(job.path, job.noted):
        tick(len(job.samples))
        return job.noted
    return _write(job, tick)


def _write(job: Job, tick: Tick) -> Written:
    histogram = np.zeros(3 * 256, np.int64)
    rejections = []
    accepted = labelled = dim = 0
    with atomic(job.path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, sample in enumerate(job.samples, job.first_key):
            try:
                files, image = files_of(sample, job.read(sample), job.encoding)
                histogram += (image.pixels if image.pixels.mode == "RGB" else image.pixels.convert("RGB")).histogram()
            except Rejected as error:
                rejections.append(Rejection(sample.path, str(error)))
            else:
                _add(tar, key, files)
                accepted += 1
                dim += image.dim
                labelled += sample.label != UNLABELLED
            tick()
    shard = _seal(job.path, accepted)
    indices = [_digest(job.path.with_suffix(suffix)) for suffix in INDICES if shard]
    return Written(job.path.stem, job.split, shard, labelled, histogram.reshape(3, 256), tuple(rejections), indices, dim)


def _stands(path: Path, noted: Written) -> bool:
    """Whether the files of a shard are what was noted, by size and hash."""
    if noted.shard is None:
        return True
    files = [path, *map(path.with_suffix, INDICES)]
    if not all(file.exists() for file in files) or path.stat().st_size != noted.shard.bytes:
        return False
    return [_digest(file) for file in files] == [noted.shard.sha256, *noted.indices]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(sample: Sample, raw: Raw, encoding: Encoding | None) -> tuple[Files, Stored]:
    """The files of a sample by suffix, the image first, and what is known of it; raises Rejected."""
    image = store(raw.image, encoding)
    origin = {"path": sample.path, "width": image.width, "height": image.height}
    files = {image.suffix: image.data}
    if sample.label != UNLABELLED:
        files["cls"] = str(sample.label).encode()
    files["json"] = json.dumps(origin).encode()
    if raw.mask is not None:
        files["mask.png"] = encode_png(raw.mask)
    return files, image


def _add(tar: tarfile.TarFile, key: int, files: Files) -> None:
    """``TarInfo`` starts with no owner and the time 0, which is what makes equal inputs equal bytes."""
    for suffix, data in files.items():
        header = tarfile.TarInfo(f"{key:09d}.{suffix}")
        header.size = len(data)
        tar.addfile(header, BytesIO(data))


def _seal(path: Path, samples: int) -> Shard | None:
    """Indexes and hashes a finished tar; one without samples is removed, as DALI sees a phantom in it."""
    if not samples:
        path.unlink()
        return None
    write_index(path)
    return Shard(path.name, samples, path.stat().st_size, _digest(path))
