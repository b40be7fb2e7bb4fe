"""The directory of a run: while it trains, and what becomes of one that ends before its first checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine import checkpoint
from errors import UserError
from lock import locked

RECORD = ("config.json*", "metrics.jsonl", "events.out.tfevents.*")


@contextmanager
def inhabited(run: Path, config: dict[str, Any], step: int = 0) -> Iterator[None]:
    """Holds ``run`` for one training that goes on from ``step``, with its configuration in it, and without later checkpoints.

    A record without a checkpoint is no run, however it came about: it is removed here, before training and after it, so that
    neither a program nor a person takes it for one. Only the lock stays.

    Raises:
        UserError: another process trains there.
    """
    with locked(run, "another process trains here; wait for it, or give another --run"):
        check_ours(run)
        checkpoint.forget_after(run / "checkpoints", step)
        clear(run)
        write_config(run, config)
        try:
            yield
        finally:
            clear(run)


def check_ours(run: Path) -> None:
    """
    Raises:
        UserError: the directory has another program's configuration, which would be overwritten.
    """
    path = run / "config.json"
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
    """config.json, whole or as it was before."""
    temporary = run / "config.json.tmp"
    temporary.write_text(json.dumps(config, indent=2) + "\n")
    checkpoint.flush(temporary)
    temporary.replace(run / "config.json")
