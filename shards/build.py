"""A source to a finished shard set: plan, write, count, and the manifest last."""

from __future__ import annotations

import errno
import json
import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdim.errors import UsageError, UserError
from amdim.fileio import locked
from amdim.shards import manifest, worker_pool
from amdim.shards.atomic import atomic
from amdim.shards.disk_space import check_space
from amdim.shards.journal import Journal
from amdim.shards.manifest import Manifest, Split
from amdim.shards.plan import Plan
from amdim.shards.sources.base import TRAINING, Source
from amdim.shards.writer import Job, Rejection, Written, write_shard

REJECTED = "rejected.jsonl"
BUSY = "another build is writing here; wait for it, or choose another --out"
UNPACKED = ".unpacked"  # what archives hold, while the set is built
PARTS = re.compile(
    r"\.?((train|val|test|unlabeled)-\d{5,}\.(tar|idx|npy)|dataset\.json|rejected\.jsonl|\.?unfinished\.jsonl)(\.[0-9a-f]{8})?(\.tmp)?"
)
TOLD = 4  # reasons in a line
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Built:
    """The outcome of a build; ``fresh`` is False when the set stood there already; ``reasons`` counts rejections.

    ``dim`` counts images of 16 bits that use little of their range.
    """

    manifest: Manifest
    reasons: Counter[str]
    seconds: float
    fresh: bool
    dim: int = 0


class _Jobs:
    """The jobs of a plan, each with what an earlier build noted of it."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan, self.journal = plan, journal

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int, /) -> Job:
        job = self.plan[index]
        return replace(job, noted=self.journal.get(job.path.stem))


def build(
    source: Source,
    out: Path,
    *,
    seed: int,
    workers: int | worker_pool.Team,
    max_rejected: float,
    overwrite: bool,
    show: Callable[[int], None],
    src: Path | None = None,
) -> Built:
    """Writes the set into ``out``, or finishes one of the same source and options that was cut off there.

    ``max_rejected`` is the fraction of listed samples that may be bad; ``show`` gets the number of samples done so far; messages
    name ``src``. Raises UsageError if another set stands there, UserError if too many samples are bad, the disk is too small or
    becomes full, or another build is at work.
    """
    start = time.perf_counter()
    recipe = _recipe(source, seed)
    again = manifest.command(source.name, out, recipe, str(src) if src else None, overwrite=True)
    out = out.resolve()  # workers may be elsewhere
    with locked(out, BUSY), full_disk(out):
        if manifest.is_in_place(out):
            raise UsageError(f"{out}: holds tars that are not this program's, with an index; choose another --out")
        if not overwrite and (found := _finished(out, recipe, again)):
            return Built(found, Counter(), 0.0, fresh=False)
        if source.unpack:
            source = replace(source, read=source.unpack(out / UNPACKED))
        _check_strangers(out)
        plan = Plan(source, out, seed)
        head = {
            "recipe": recipe,
            "tools": tools(),
            "shards": plan.shards,
            "src": str(src) if src else None,
            "overwrite": overwrite,
        }
        journal = _journal(out, head, again, overwrite)
        check_space(out, plan.expected - _bytes_there(out))
        worker_pool.run(write_shard, _Jobs(plan, journal), workers, show, lambda _, written: _note(journal, written))
        reasons = save_rejections(out, (rejection for written in journal.all() for rejection in written.rejections))
        check_rejections(out, reasons, plan.samples, max_rejected)
        result = _manifest(source, recipe, journal, reasons.total())
        dim = sum(written.dim for written in journal.all())
        manifest.save(result, out)
        journal.remove()
        shutil.rmtree(out / UNPACKED, ignore_errors=True)
    return Built(result, reasons, time.perf_counter() - start, fresh=True, dim=dim)


def clear(out: Path, keep: Container[str] = ()) -> None:
    """Removes every part of a set from ``out``, the manifest first, and nothing else; but not the shards in ``keep``."""
    (out / manifest.FILE).unlink(missing_ok=True)
    for path in out.iterdir():
        if PARTS.fullmatch(path.name) and path.stem not in keep and path.name != manifest.UNFINISHED:
            path.unlink()


def _recipe(source: Source, seed: int) -> dict[str, Any]:
    """All that decides what is written, but for the inputs themselves; size and quality are None where nothing is resized."""
    encoding = asdict(source.encoding) if source.encoding else {"size": None, "quality": None}
    return {"source": source.name, "seed": seed, **encoding, **source.recipe}


def tools() -> dict[str, str]:
    """Return the versions of what decides the bytes that are written; of the optional decoders those that are installed."""
    needed = {name: version(name) for name in ("numpy", "pillow", "simplejpeg")}
    optional = {name: version(name) for name in ("tifffile", "imagecodecs") if find_spec(name)}
    return {"python": platform.python_version(), **needed, **optional}


def _finished(out: Path, recipe: dict[str, Any], again: str) -> Manifest | None:
    """The set in ``out`` if there is one of this recipe; raises UsageError if there is one of another."""
    if not (out / manifest.FILE).exists():
        return None
    found = manifest.load(out)
    if changed := _changes(found.recipe, recipe):
        raise UsageError(f"{out}: holds a set built otherwise ({changed}); choose another --out, or replace it with `{again}`")
    (out / manifest.UNFINISHED).unlink(missing_ok=True)  # of a build that was cut off after its last step but this
    return found


def _check_strangers(out: Path) -> None:
    """Nothing of ours lies there without a manifest or a journal beside it, so such shards are someone else's."""
    known = (out / manifest.FILE).exists() or (out / manifest.UNFINISHED).exists()
    tars = [] if known else sorted(path.name for path in out.iterdir() if PARTS.fullmatch(path.name) and path.suffix == ".tar")
    if tars:
        raise UsageError(f"{out}: holds {tars[0]}, which no build of this program left; move it away, or choose another --out")


def _journal(out: Path, head: dict[str, Any], again: str, overwrite: bool) -> Journal:
    """The journal to go on with, an empty one if there is none; raises UsageError if there is one of another build."""
    journal = Journal(out)
    parts = ("recipe", "tools", "shards")
    changed = ", ".join(filter(None, (_changes(journal.head.get(part, {}), head[part]) for part in parts)))
    replacing = not changed and journal.head.get("overwrite", False)  # an earlier set is gone already, and this one goes on
    if not journal.head or (overwrite and not replacing):
        clear(out)
        journal.begin(head)
        return journal
    if changed:
        finish = manifest.how_to_make(out)
        raise UsageError(
            f"{out}: holds an unfinished set of other options or input ({changed}); finish it with `{finish}`, "
            f"or start anew with `{again}`"
        )
    clear(out, keep=journal.done)
    return journal


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys = sorted(old.keys() | new.keys())
    return ", ".join(f"{key} {old.get(key)} → {new.get(key)}" for key in keys if old.get(key) != new.get(key))


def _note(journal: Journal, written: Written) -> None:
    noted = journal.get(written.name)
    if noted is None or noted.shard != written.shard:
        journal.add(written)


@contextmanager
def full_disk(out: Path) -> Iterator[None]:
    """Writing below ``out``; raises UserError when there is no room for it."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(f"{out}: the disk is full; free some space and type the same again: what is done is kept") from None


def _bytes_there(out: Path) -> int:
    return sum(path.stat().st_size for path in out.iterdir() if PARTS.fullmatch(path.name))


def save_rejections(out: Path, rejections: Iterable[Rejection]) -> Counter[str]:
    """Writes ``rejected.jsonl`` and counts the reasons, without what stands behind their colons."""
    reasons: Counter[str] = Counter()
    with atomic(out / REJECTED) as file:
        for rejection in rejections:
            file.write(json.dumps(asdict(rejection)).encode() + b"\n")
            reasons[rejection.reason.partition(":")[0]] += 1
    return reasons


def check_rejections(out: Path, reasons: Counter[str], listed: int, limit: float) -> None:
    """Raises UserError, with the reasons, when more than the fraction ``limit`` of the samples listed were rejected."""
    rejected = reasons.total()
    if rejected > limit * listed:
        told = [f"{count:,}: {reason}" for reason, count in reasons.most_common(TOLD)] + ["…"] * (len(reasons) > TOLD)
        raise UserError(
            f"{out}: {rejected:,} of {listed:,} images are bad ({'; '.join(told)}), more than --max-rejected {limit:g} allows, "
            f"so the set is left unfinished; {out / REJECTED} names them"
        )


def _manifest(source: Source, recipe: dict[str, Any], journal: Journal, rejected: int) -> Manifest:
    found: dict[str, list[Written]] = {split: [] for split in source.splits}
    histogram = np.zeros((3, 256), np.int64)
    for written in journal.all():
        found[written.split].append(replace(written, rejections=()))
        histogram += written.histogram if written.split in TRAINING else 0
    splits = {name: _split(shards) for name, shards in found.items()}
    if empty := [name for name, split in splits.items() if not split.samples]:
        raise UserError(f"split {empty[0]}: not one image could be stored, so the set is left unfinished")
    return Manifest(source.name, source.classes, *moments(histogram), splits, recipe, tools(), rejected)


def _split(written: list[Written]) -> Split:
    shards = tuple(result.shard for result in written if result.shard)
    return Split(sum(shard.samples for shard in shards), sum(result.labelled for result in written), shards)


def moments(histogram: NDArray[np.int64]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation per channel, as fractions of 255, of a (3, 256) histogram of values."""
    values = np.arange(256) / 255
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = (share * values).sum(axis=1)
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return manifest.rgb(mean), manifest.rgb(std)
