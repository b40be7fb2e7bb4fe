"""A source to a finished shard set: plan, write, count, and the manifest last."""

from __future__ import annotations

import json
import platform
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import UsageError, UserError
from lock import locked

from . import manifest, pool
from .atomic import atomic
from .manifest import Manifest, Split
from .plan import plan
from .source import TRAINING, Source
from .space import check_space
from .write import Rejection, Written, write_shard

REJECTED = "rejected.jsonl"
UNPACKED = ".unpacked"  # what archives hold, while the set is built
BUSY = "another build is writing here; wait for it, or choose another --out"
PARTS = re.compile(r"\.?(train|val|unlabeled)-\d{5}\.(tar|idx|npy)(\.tmp)?|\.?(dataset\.json|rejected\.jsonl)(\.tmp)?")


@dataclass(frozen=True)
class Built:
    """The outcome of a build; ``fresh`` is False when the set stood there already."""

    manifest: Manifest
    rejections: tuple[Rejection, ...]
    seconds: float
    fresh: bool


def build(
    source: Source,
    out: Path,
    *,
    seed: int,
    workers: int,
    max_rejected: float,
    overwrite: bool,
    show: Callable[[int], None],
) -> Built:
    """Writes the set into ``out``, from which parts of an earlier one are removed first.

    ``max_rejected`` is the fraction of listed samples that may be bad; ``show`` gets the number of samples done so far.
    Raises UsageError if another set stands there, UserError if too many samples are bad, the disk is too small, or
    another build is at work.
    """
    start = time.perf_counter()
    recipe = _recipe(source, seed)
    with locked(out, BUSY):
        if not overwrite and (found := _finished(out, recipe)):
            return Built(found, (), 0.0, fresh=False)
        clear(out)
        if source.unpack:
            source = replace(source, read=source.unpack(out / UNPACKED))
        jobs, expected = plan(source, out, seed)
        check_space(out, expected)
        written = pool.run(write_shard, jobs, workers, show)
        rejections = tuple(rejection for shard in written for rejection in shard.rejections)
        _save_rejections(out, rejections)
        _check_rejections(out, len(rejections), sum(len(job.samples) for job in jobs), max_rejected)
        result = _manifest(source, recipe, written)
        manifest.save(result, out)
        shutil.rmtree(out / UNPACKED, ignore_errors=True)
    return Built(result, rejections, time.perf_counter() - start, fresh=True)


def clear(out: Path) -> None:
    """Removes every part of a set from ``out``, the manifest first, and nothing else."""
    (out / manifest.FILE).unlink(missing_ok=True)
    for path in out.iterdir():
        if PARTS.fullmatch(path.name):
            path.unlink()


def _recipe(source: Source, seed: int) -> dict[str, Any]:
    """All that decides what is written, but for the inputs themselves; size and quality are None where nothing is resized."""
    encoding = asdict(source.encoding) if source.encoding else {"size": None, "quality": None}
    return {"source": source.name, "seed": seed, **encoding, **source.recipe}


def _finished(out: Path, recipe: dict[str, Any]) -> Manifest | None:
    """The set in ``out`` if there is one of this recipe; raises UsageError if there is one of another."""
    if not (out / manifest.FILE).exists():
        return None
    found = manifest.load(out)
    keys = sorted(recipe.keys() | found.recipe.keys())
    changed = [f"{key} {found.recipe.get(key)} → {recipe.get(key)}" for key in keys if found.recipe.get(key) != recipe.get(key)]
    if changed:
        raise UsageError(f"{out}: holds a set built otherwise ({', '.join(changed)}); pass --overwrite or another --out")
    return found


def _save_rejections(out: Path, rejections: Sequence[Rejection]) -> None:
    with atomic(out / REJECTED) as file:
        file.writelines(json.dumps(asdict(rejection)).encode() + b"\n" for rejection in rejections)


def _check_rejections(out: Path, rejected: int, listed: int, limit: float) -> None:
    if rejected > limit * listed:
        raise UserError(
            f"{out}: {rejected:,} of {listed:,} images are bad, more than --max-rejected {limit:g} allows, so the set is left "
            f"unfinished; {out / REJECTED} names them"
        )


def _manifest(source: Source, recipe: dict[str, Any], written: Sequence[Written]) -> Manifest:
    splits = {split: _split([shard for shard in written if shard.split == split]) for split in source.splits}
    if empty := [name for name, split in splits.items() if not split.samples]:
        raise UserError(f"split {empty[0]}: not one image could be stored, so the set is left unfinished")
    counted = [shard.histogram for shard in written if shard.split in TRAINING]
    mean, std = _moments(np.sum(counted, axis=0))
    tools = {"python": platform.python_version(), **{name: version(name) for name in ("numpy", "pillow")}}
    return Manifest(source.name, source.classes, mean, std, splits, recipe, tools)


def _split(written: Sequence[Written]) -> Split:
    shards = tuple(result.shard for result in written if result.shard)
    return Split(sum(shard.samples for shard in shards), sum(result.labelled for result in written), shards)


def _moments(histogram: NDArray[np.int64]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation per channel, as fractions of 255, of a (3, 256) histogram of values."""
    values = np.arange(256) / 255
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = (share * values).sum(axis=1)
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return manifest.rgb(mean), manifest.rgb(std)
