"""What one sees: a table at the start, then a live panel in a terminal or plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table

from amdim.engine.monitor import preset_table
from amdim.engine.monitor.live_panel import panel


class Outlet:
    """A stream whose failures end nothing: the disk that holds the log is full, the terminal has closed, `tee` has ended."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def make_console(quiet: bool = False) -> Console:
    """Standard output; wide where it is no terminal, so that lines in a log stay whole."""
    return Console(quiet=quiet, width=None if sys.stdout.isatty() else 200, file=cast(TextIO, Outlet(sys.stdout)))


def start_table(rows: Iterable[tuple[str, str]], console: Console) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(f"[bold]{name}", escape(value))
    console.print(table)


def print_presets(console: Console) -> None:
    """The presets as a ladder, and how to read it."""
    table = Table(Column(preset_table.HEADINGS[0], no_wrap=True), *preset_table.HEADINGS[1:], box=None)
    for row in preset_table.rows():
        table.add_row(*row)
    console.print(table)
    for words in (preset_table.RULE, preset_table.MEMORY, preset_table.SPEED):
        console.print(words, highlight=False)


REFRESHES = 4  # of the live panel, a second


class Progress:
    """Shows log rows: redrawn in place in a terminal, one line each where output goes to a file."""

    def __init__(self, steps: int, console: Console) -> None:
        self.steps, self.console = steps, console
        self.started, self.first = time.monotonic(), 0
        self.row: dict[str, Any] | None = None
        self.drawn = -math.inf
        # Warnings come out above the panel; but not those that go to a file, nor out of a console that says nothing.
        both = sys.stderr.isatty()
        self.live = None
        if console.is_terminal and not console.quiet:
            self.live = Live(console=console, refresh_per_second=REFRESHES, redirect_stderr=both)

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def begin(self, step: int) -> None:
        """Counts the time to the end from here."""
        self.started, self.first = time.monotonic(), step

    def tick(self, step: int) -> None:
        """In a terminal, that steps are taken; numbers, which the device is waited for, are the last log row's."""
        if not self.live or time.monotonic() - self.drawn < 1 / REFRESHES:
            return
        self.drawn = time.monotonic()
        if self.row:
            self.live.update(panel(self.row, step, self.steps, self.remaining(step)))
        else:
            self.live.update(f"step {step:,}/{self.steps:,}, numbers follow")

    def say(self, words: str) -> None:
        """A line of its own, above the live panel."""
        self.console.print(words, soft_wrap=True, highlight=False, markup=False)

    def show(self, row: dict[str, Any]) -> None:
        remaining, self.row = self.remaining(row["step"]), row
        if self.live:
            self.live.update(panel(row, row["step"], self.steps, remaining))
        else:
            self.console.print(describe(row, self.steps, remaining), soft_wrap=True, highlight=False)

    def remaining(self, step: int) -> float:
        """Seconds to the end at the pace so far."""
        return (time.monotonic() - self.started) / max(1, step - self.first) * (self.steps - step)


def describe(row: dict[str, Any], steps: int, remaining: float) -> str:
    """One log row as one line that greps well."""
    mixture = f"mixture {row['loss_mixture']:.3f} " if row.get("loss_mixture") else ""
    accuracy = "" if row["linear_top1"] is None else f"  linear {row['linear_top1']:.1%} mlp {row['mlp_top1']:.1%}"
    alone = row["images_per_s"] == row["images_per_s_a_rank"]
    each = "" if alone else f" ({row['images_per_s_a_rank']:.0f} a rank)"
    share = "" if row["mfu"] is None else f" ({row['mfu']:.0%} of the peak)"
    saved = "" if row["checkpoint_step"] is None else f"  saved {row['checkpoint_step']}"
    return (
        f"step {row['step']}/{steps}  loss {row['loss']:.3f} "
        f"(1→5 {row['loss_1t5']:.3f} 1→7 {row['loss_1t7']:.3f} 5→5 {row['loss_5t5']:.3f} {mixture}reg {row['regulariser']:.3f})"
        f"{accuracy}  "
        f"{row['images_per_s']:.0f} images/s{each}  {row['gflop_per_s']:.0f} GFLOP/s{share}  "
        f"data {row['data_s']:.3f} s compute {row['compute_s']:.3f} s  "
        f"lr {row['lr']:.2e}  {row['memory_gib']:.2f} GiB{saved}  eta {timedelta(seconds=round(remaining))}"
    )
