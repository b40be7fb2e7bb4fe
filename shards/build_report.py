"""What a person sees of a build and of a set: progress, and tables."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from amdim.shards.build import Built
from amdim.shards.index import load_index
from amdim.shards.manifest import Manifest
from amdim.shards.sources.folder import kinds

PLAIN_LINES = 5  # of progress in all, where there is no terminal
TESTED = ("val", "test")  # splits that probes may be tested on


def say(console: Console, line: str) -> None:
    """One line as it is: not folded, not coloured, brackets in file names left alone."""
    console.print(printable(line), soft_wrap=True, highlight=False, markup=False)


def printable(text: str) -> str:
    """File names may hold line breaks, and bytes that are no text."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {self.unit}/s" if task.speed else "")


@contextmanager
def progress(console: Console, what: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Yields the function to call with the number of images done: a bar on a terminal, a few lines elsewhere."""
    if not console.is_terminal:
        yield _plain_progress(console, what, total, unit)
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _plain_progress(console: Console, what: str, total: int, unit: str) -> Callable[[int], None]:
    start, shown = time.perf_counter(), 0

    def show(done: int) -> None:
        nonlocal shown
        if done * PLAIN_LINES // max(total, 1) > shown:
            shown = done * PLAIN_LINES // total
            say(console, f"{what}: {done:,} of {total:,} {unit}, {done / (time.perf_counter() - start):,.0f} {unit}/s")

    return show


def built(console: Console, result: Built, ignored: Counter[str], where: str) -> None:
    """The summary at the end of a build."""
    console.print(splits_table(result.manifest))
    for reason, count in result.reasons.most_common():
        say(console, f"rejected {count:,}: {reason}")
    if ignored:
        say(console, f"ignored {ignored.total():,} files that are no images or belong to no split: {kinds(ignored)}")
    if result.dim:
        what = "images of 16 bits use a sixteenth of their range or less, so they are nearly black"
        say(console, f"warning: {result.dim:,} {what}; see docs/data.md")
    say(console, f"{where}: finished in {result.seconds:,.1f} s")


def described(console: Console, directory: Path, manifest: Manifest) -> None:
    """All of a manifest but the single shards, and what the indices say of the images."""
    console.print(splits_table(manifest))
    facts = Table(show_header=False, box=None)
    facts.add_row("classes", Text(printable(f"{len(manifest.classes)}: {_shorten(manifest.classes)}")))
    for title, fact in _about_images(directory, manifest):
        facts.add_row(title, fact)
    facts.add_row("mean", " ".join(f"{value:.4f}" for value in manifest.mean))
    facts.add_row("std", " ".join(f"{value:.4f}" for value in manifest.std))
    recipe = ", ".join(f"{key} {value}" for key, value in sorted(manifest.recipe.items()) if value is not None)
    facts.add_row("recipe", Text(printable(recipe)))
    facts.add_row("made with", ", ".join(f"{tool} {version}" for tool, version in sorted(manifest.tools.items())))
    console.print(facts)


def _about_images(directory: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield the mean image, how unequal the classes are, and which of them have no image to test on."""
    total, counts = np.zeros(3), {name: np.zeros(len(manifest.classes) + 1, np.int64) for name in manifest.splits}
    for name, split in manifest.splits.items():
        for shard in split.shards:
            rows = load_index((directory / shard.file).with_suffix(".npy"))
            total += [rows[field].sum(dtype=np.int64) for field in ("width", "height", "size")]
            counts[name] += np.bincount(rows["label"] + 1, minlength=len(counts[name]))[: len(counts[name])]
    width, height, size = total / sum(split.samples for split in manifest.splits.values())
    yield "mean image", f"{width:,.0f} x {height:,.0f} pixels, {size / 1000:,.1f} KB"
    if not manifest.classes:
        return
    every = np.sum([*counts.values()], 0)[1:]
    yield "in a class", f"{every.min():,} to {every.max():,} images"
    for name in (each for each in TESTED if each in counts):
        if missing := [each for each, count in zip(manifest.classes, counts[name][1:], strict=True) if not count]:
            yield (
                f"not in {name}",
                f"{len(missing):,} of {len(manifest.classes):,} classes: {printable(_shorten(tuple(missing)))}",
            )


def splits_table(manifest: Manifest) -> Table:
    """A row a split."""
    table = Table("split", title=manifest.name, title_justify="left")
    for heading in ("samples", "labelled", "shards", "MB"):
        table.add_column(heading, justify="right")
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards) / 1e6
        table.add_row(name, f"{split.samples:,}", f"{split.labelled:,}", f"{len(split.shards)}", f"{size:,.1f}")
    return table


def _shorten(names: tuple[str, ...], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
