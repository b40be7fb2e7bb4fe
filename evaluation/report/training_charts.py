"""What a run logged: curves of losses, online probes and speed, and the stretches that took longest."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from amdim.evaluation.report.chart import Chart, Line, chart
from amdim.evaluation.run_record import ONLINE, terms

SECONDS = {"data_s": "data", "compute_s": "compute"}
SLOWEST = 5

Row = dict[str, Any]


class Span(NamedTuple):
    """A stretch between two log lines: seconds a step, and how many times the median that is."""

    steps: str
    data_s: float
    compute_s: float
    times: float


def charts(rows: list[Row], config: dict[str, Any]) -> list[Chart]:
    """Those for which there is something to show."""
    found = [losses(rows, terms(rows, config)), probes(rows), throughput(rows), seconds(rows)]
    return [each for each in found if each.legend]


def losses(rows: list[Row], names: dict[str, str]) -> Chart:
    words = (
        "Each term is the cost of finding an image's own locations among those of all others; all that are trained should fall, "
        "1→7 least, since its locations see the smallest parts. A sudden rise means too high a rate."
    )
    return chart("Losses by term", [line(rows, name, label) for name, label in names.items()], "step", "nats", words)


def probes(rows: list[Row]) -> Chart:
    words = (
        "Classifiers trained beside the encoder on r1, without a gradient into it, and scored on augmented training views: lower "
        "than a probe's test accuracy, but they should keep rising."
    )
    lines = [line(rows, name, label, 100) for name, label in ONLINE.items()]
    return chart("Online probes", lines, "step", "top-1, %", words)


def throughput(rows: list[Row]) -> Chart:
    words = "Should be level. A dip is a checkpoint, another program on the machine, or data that came late."
    return chart("Throughput", [line(rows, "images_per_s", "images/s")], "step", "images/s", words, zero=True)


def seconds(rows: list[Row]) -> Chart:
    words = (
        "Time that a step waits for its batch, and all the rest of it. On a GPU data should be near zero: if not, images are "
        "made too slowly (docs/loader.md)."
    )
    lines = [line(rows, name, label) for name, label in SECONDS.items()]
    return chart("Where a step's time goes", lines, "step", "s a step", words, zero=True)


def line(rows: list[Row], name: str, label: str, scale: float = 1) -> Line:
    seen = [row for row in rows if row.get(name) is not None]
    return Line(label, [row["step"] for row in seen], [scale * row[name] for row in seen])


def slowest(rows: list[Row]) -> dict[str, list[Span]]:
    """The stretches that waited longest for data, and those that computed longest, each beside the median."""
    timed = [(f"{before + 1:,}–{row['step']:,}", row) for before, row in zip(begun(rows), rows, strict=True)]
    timed = [(steps, row) for steps, row in timed if row.get("data_s") is not None and row.get("compute_s") is not None]
    return {label: worst(timed, name) for name, label in SECONDS.items()} if timed else {}


def begun(rows: Sequence[Row]) -> list[int]:
    """The step before each line's own; the first line of a run that went on from another's is as long as the second."""
    ends = [row["step"] for row in rows]
    first = max(0, 2 * ends[0] - ends[1]) if len(ends) > 1 else 0
    return [first, *ends[:-1]] if ends else []


def worst(timed: Sequence[tuple[str, Row]], name: str) -> list[Span]:
    usual = median(row[name] for _, row in timed)
    longest = sorted(timed, key=lambda each: -each[1][name])[:SLOWEST]
    return [Span(steps, row["data_s"], row["compute_s"], row[name] / usual if usual else 1.0) for steps, row in longest]
