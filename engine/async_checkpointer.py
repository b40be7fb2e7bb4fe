"""Writes checkpoints beside the training loop, which stops for no longer than a copy to host memory takes."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from torch import Tensor

from amdim.engine import checkpoint
from amdim.engine.nan_guard import NotFinite, check_state
from amdim.engine.snapshot import snapshot
from amdim.errors import UserError, warn


class Written(NamedTuple):
    """A checkpoint on the disk: its step and size, and the seconds that the loop stood still and that writing took."""

    step: int
    bytes: int
    copy_s: float
    write_s: float

    def __str__(self) -> str:
        times = f"training stood still for {self.copy_s:.3f} s, written in {self.write_s:.3f} s"
        return f"saved step {self.step:,}: {self.bytes / 1e6:,.1f} MB, {times}"


class AsyncCheckpointer:
    """One checkpoint at a time: who saves while another is being written waits for it.

    A checkpoint that cannot be written is a loud warning and no more, as the next may have room: but ``finish`` raises, and
    nothing with a number that is no number is written. The thread ends with the process, however that ends; a checkpoint that is
    half-written then has no name of one.

    Where others wait for this process, it waits for no disk longer than they would for it: a save that comes while the last one
    is still being written is left out, with a warning.

    Args:
        root: where checkpoints go.
        record: the run's log. A checkpoint should not outlive the rows before it, which are on the disk when it is.
        config: the run's, saved in each.
        keep: how many are kept.
        saved: a checkpoint that is on the disk already.
        patience: the most seconds that a save waits for the one before it; None waits for ever.
    """

    def __init__(
        self,
        root: Path,
        config: dict[str, Any],
        keep: int = 2,
        saved: Path | None = None,
        record: Path | None = None,
        patience: float | None = None,
    ) -> None:
        self.root, self.config, self.keep, self.saved, self.record = root, config, keep, saved, record
        self.patience = patience
        self.last: Written | None = None
        self.told: Written | None = None
        self.thread: Thread | None = None
        self.failure: Exception | None = None
        self.copied: Any = None

    def __enter__(self) -> AsyncCheckpointer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.thread:
            self.thread.join()

    def save(self, step: int, weights: dict[str, Tensor], trainer: dict[str, Any], began: float | None = None) -> None:
        """Copies the state and has it written; returns when it is copied.

        Args:
            step, weights, trainer: the state.
            began: when training began to stand still for it, by ``time.perf_counter``; now, if it is not said.

        Raises:
            NotFinite: the state before this one held what is no number.
        """
        began = began or time.perf_counter()
        if self.thread:
            self.thread.join(self.patience)
            if self.thread.is_alive():
                warn(f"step {step:,} is not saved: the disk is still busy with the last save; a longer --save-every helps")
                return
        self.settle()
        self.copied = snapshot({"weights": weights, "trainer": trainer}, self.copied)
        self.thread = Thread(target=self.write, args=(step, time.perf_counter() - began), daemon=True)
        self.thread.start()

    def finish(self, step: int, weights: dict[str, Tensor], trainer: dict[str, Any], began: float | None = None) -> None:
        """Has the last state on the disk when it returns.

        Raises:
            UserError: it cannot be written.
        """
        self.settle()
        if self.saved is None or self.saved.resolve() != (self.root / f"step-{step}").resolve():
            self.save(step, weights, trainer, began)
            self.settle(last=True)

    def write(self, step: int, copy_s: float) -> None:
        """The thread's part."""
        began = time.perf_counter()
        try:
            check_state(self.copied)
            if self.record:
                with suppress(OSError):  # whoever writes the record tells of a disk that is full
                    checkpoint.flush(self.record)
            path = checkpoint.save(self.root, step, **self.copied, config=self.config, keep=self.keep)
            size = sum(file.stat().st_size for file in path.iterdir())
        except Exception as error:  # whatever it is, the loop's thread must hear of it
            self.failure = error
            return
        self.last, self.saved = Written(step, size, copy_s, time.perf_counter() - began), path

    def settle(self, last: bool = False) -> None:
        """Waits until nothing is being written, and says how that ended: a full disk is a warning unless it is the last time."""
        if self.thread:
            self.thread.join()
        self.thread = None
        failure, self.failure = self.failure, None
        if failure and (isinstance(failure, NotFinite) or not isinstance(failure, UserError)):
            raise failure
        if failure and last:
            raise UserError(f"{failure}; make room, and the same command goes on") from failure
        if failure:
            warn(f"{failure}. TRAINING GOES ON WITHOUT IT, and the next save tries again: make room on the disk")

    def news(self) -> Written | None:
        """What was written since this was asked last; warns of what could not be."""
        if self.thread and not self.thread.is_alive():
            self.settle()
        told, self.told = self.told, self.last
        return self.last if self.last is not told else None

    def row(self) -> dict[str, Any]:
        """The last checkpoint, for the log; None where there is none yet."""
        last = self.last
        return {
            "checkpoint_step": last and last.step,
            "checkpoint_mb": last and last.bytes / 1e6,
            "checkpoint_copy_s": last and last.copy_s,
            "checkpoint_write_s": last and last.write_s,
        }
