"""A run's record: ``metrics.jsonl``, one object a log step, and TensorBoard events beside it.

Neither ends a run. Rows that the disk has no room for wait in memory and are written when it has; TensorBoard's are lost.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from amdim.errors import warn

FILE = "metrics.jsonl"
PROMISED = {"step", "loss", "loss_1t5", "loss_1t7", "loss_5t5", "linear_top1", "mlp_top1"}


class MetricsLogger:
    """Appends to the record in ``directory``; on resuming, what was logged after the checkpoint is dropped first."""

    def __init__(self, directory: Path, resumed_at: int) -> None:
        self.directory, self.path = directory, directory / FILE
        kept = "".join(as_line(row) for row in read_rows(directory) if row["step"] <= resumed_at).encode()
        keep(self.path, kept)
        self.size, self.waiting, self.failing = len(kept), "", False
        self.board: SummaryWriter | None = None
        self.purge: int | None = resumed_at + 1  # TensorBoard forgets what an earlier process has shown from there on
        threading.excepthook = in_words

    def write(self, row: dict[str, Any]) -> None:
        self.waiting += as_line(row)
        self.attempt(self.append)
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}

        def scalars(board: SummaryWriter) -> None:
            for name, value in numbers.items():
                board.add_scalar(name, value, row["step"])

        self.show(scalars)

    def write_pairs(self, step: int, picture: Tensor) -> None:
        """A picture (3, height, width) in [0, 1]."""
        self.show(lambda board: board.add_image("pairs of views", picture, step))

    def append(self) -> None:
        """Writes the rows that wait, in place of half a row that an earlier try may have left."""
        with self.path.open("ab") as file:
            self.size = min(self.size, there := file.tell())
            if there > self.size:
                file.truncate(self.size)
            file.write(self.waiting.encode())
            file.flush()
            self.size, self.waiting = file.tell(), ""

    def flush(self) -> None:
        """Has the rows that wait written, if there is room now."""
        self.attempt(self.append)

    def show(self, what: Callable[[SummaryWriter], object]) -> None:
        """TensorBoard's part. A writer that has failed repeats its error for ever: another takes its place when there is room."""
        if self.board is None and self.failing:
            return
        try:
            if self.board is None:
                self.board, self.purge = SummaryWriter(str(self.directory), purge_step=self.purge), None
            what(self.board)
        except OSError as error:
            self.board = None
            self.complain(error)

    def attempt(self, what: Callable[[], None]) -> None:
        try:
            what()
        except OSError as error:
            self.complain(error)
        else:
            self.failing = False

    def complain(self, error: OSError) -> None:
        """Once for each time that the disk is full."""
        if not self.failing:
            words = f"{self.directory}: its record cannot be written ({error.strerror or error})"
            warn(f"{words}. TRAINING GOES ON; rows wait in memory: make room on the disk")
        self.failing = True

    def close(self) -> None:
        self.flush()
        if self.board:
            with suppress(OSError):  # it was told of when it was full
                self.board.close()


def in_words(failure: threading.ExceptHookArgs) -> None:
    """For a thread that ends by an error: a traceback, but not for TensorBoard's on a full disk, which ``show`` tells of."""
    if not (type(failure.thread).__name__ == "_AsyncWriterThread" and issubclass(failure.exc_type, OSError)):
        threading.__excepthook__(failure)


def keep(path: Path, kept: bytes) -> None:
    """Has the record hold that and no more: by cutting it short where that will do, which a full disk has room for."""
    if path.exists() and path.read_bytes().startswith(kept):
        os.truncate(path, len(kept))
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(kept)
    temporary.replace(path)


def as_line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def read_rows(directory: Path) -> list[dict[str, Any]]:
    """The rows of a run's record; a line that is no whole row, as a power cut may leave, is passed over."""
    path = directory / FILE
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [row for row in map(parse, lines) if row.keys() >= PROMISED]


def parse(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
