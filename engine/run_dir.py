"""The directory of a run: while it trains, and what becomes of one that ends before its first checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amdim.engine import checkpoint
from amdim.engine.json_file import as_json
from amdim.errors import UserError, first_line
from amdim.fileio import locked

RECORD = ("metrics.jsonl", "events.out.tfevents.*", "config.json*")  # removed in this order: config.json says whose they are


@contextmanager
def inhabited(run: Path, config: dict[str, Any], step: int = 0, there: list[Path] | None = None) -> Iterator[None]:
    """Holds ``run`` for one training that goes on from ``step``, with its configuration in it, and without later checkpoints.

    A record without a checkpoint is no run, however it came about: it is removed here, before training and after it, so that
    neither a program nor a person takes it for one. Only the lock stays.

    Args:
        run: its directory.
        config: written into it.
        step: where it goes on.
        there: its checkpoints when ``step`` was chosen, if that was before.

    Raises:
        UserError: another process trains there, or has saved there meanwhile; or the directory is not a run's.
    """
    with locked(run, "another process trains here; wait for it, or give another --run"):
        if there is not None and checkpoint.steps(run / "checkpoints") != there:
            raise UserError(f"{run}: another process has saved here just now; the same command goes on from there")
        check_ours(run)
        checkpoint.forget_after(run / "checkpoints", step)
        clear(run)
        try:
            write_config(run, config)
            yield
        finally:
            clear(run)


def check_ours(run: Path) -> None:
    """
    Raises:
        UserError: the directory has another program's files, which would be removed or overwritten.
    """
    path = run / "config.json"
    begun = path.exists() or checkpoint.steps(run / "checkpoints")
    if not begun and (found := next((each for name in RECORD[:2] for each in run.glob(name)), None)):
        raise UserError(f"{found}: is of another program, as there is no config.json beside it; give another --run")
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):  # none, or one that was cut short
        return
    if not isinstance(found, dict) or not found.keys() >= {"data", "preset", "settings"}:
        raise UserError(f"{path}: is not a run's configuration, and would be overwritten; give another --run")


def clear(run: Path) -> None:
    """Removes the record of a run that has no checkpoint."""
    if checkpoint.steps(run / "checkpoints"):
        return
    for pattern in RECORD:
        for path in run.glob(pattern):
            path.unlink()
    with suppress(OSError):  # it is not there, or somebody else's things are in it
        (run / "checkpoints").rmdir()


def write_config(run: Path, config: dict[str, Any]) -> None:
    """config.json, whole or as it was before. One that is right stays, as a full disk has no room for another.

    Raises:
        UserError: it cannot be written.
    """
    path, temporary = run / "config.json", run / "config.json.tmp"
    text = as_json(config)
    if path.exists() and path.read_bytes() == text:
        return
    try:
        temporary.write_bytes(text)
        checkpoint.flush(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({first_line(error)}); make room on the disk") from error
