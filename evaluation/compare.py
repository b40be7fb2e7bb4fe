"""Runs beside one another: a table of what they were and what came of them, and one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from rich.markup import escape
from rich.table import Table

from errors import UsageError
from evaluation.record import NAMES, Record, read_record, top1

LOSSES = {"loss": "loss", "loss_1t5": "loss 1→5", "loss_1t7": "loss 1→7", "loss_5t5": "loss 5→5"}
NONE = "–"


def compare(directories: list[Path]) -> tuple[Table, Path]:
    """The table, and the picture ``compare.png`` beside the first run's directory.

    Raises:
        UsageError: fewer than two runs, or a directory without one.
    """
    if len(directories) < 2:
        raise UsageError("--compare: give two runs or more, as in --compare runs/a runs/b")
    found = [read_record(each) for each in directories]
    return tabulate(found), draw(found, directories[0].parent / "compare.png")


def tabulate(found: list[Record]) -> Table:
    """A column a run."""
    table = Table("run", *(escape(each.name) for each in found))
    table.add_row("preset", *(str(each.config["preset"]) for each in found))
    table.add_row("data", *(escape(each.data) or NONE for each in found))
    table.add_row("steps", *map(progress, found))
    table.add_row("images/s, median", *map(speed, found))
    for name, title in LOSSES.items():
        table.add_row(f"last {title}", *(f"{each.rows[-1][name]:.3f}" if each.rows else NONE for each in found))
    for probe in all_probes(found):
        cells = (escape(probed(each, probe)) for each in found)
        table.add_row(f"{NAMES.get(probe, probe)}, top-1", *cells)
    return table


def probed(each: Record, probe: str) -> str:
    """Top-1, and on what where that is not the run's own data and newest step."""
    if (result := each.results.get(probe)) is None:
        return NONE
    other = [f"on {elsewhere}"] if (elsewhere := each.elsewhere(result)) else []
    other += [f"step {result['step']:,}"] if result.get("step", each.step) != each.step else []
    return ", ".join([top1(result), *other])


def progress(each: Record) -> str:
    planned = each.config["steps"]
    return f"{each.step:,}" if each.step == planned else f"{each.step:,} of {planned:,}"


def speed(each: Record) -> str:
    return NONE if each.images_per_s is None else f"{each.images_per_s:,.0f}"


def all_probes(found: list[Record]) -> list[str]:
    return list(dict.fromkeys(probe for each in found for probe in each.results))


def draw(found: list[Record], path: Path) -> Path:
    """Losses, online probes, and what probes found afterwards, with their intervals."""
    probes = all_probes(found)
    figure, grid = plt.subplots(1, 3 if probes else 2, figsize=(15 if probes else 11, 4.2), layout="constrained")
    for number, each in enumerate(found):
        curves(grid, each, f"C{number % 10}")
    grid[0].set(title="Loss: lower is better, for one batch and objective", xlabel="step", ylabel="nats")
    grid[1].set(title="Online linear probe on augmented training views", xlabel="step", ylabel="top-1, %")
    if probes:
        bars(grid[2], found, probes)
    for axes in grid:
        axes.grid(alpha=0.3)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
    return temporary.replace(path)


def curves(grid: list[plt.Axes], each: Record, colour: str) -> None:
    marker = "." if len(each.rows) < 5 else None
    steps_, losses = [row["step"] for row in each.rows], [row["loss"] for row in each.rows]
    grid[0].plot(steps_, losses, color=colour, marker=marker, label=each.name)
    seen = [(row["step"], 100 * row["linear_top1"]) for row in each.rows if row["linear_top1"] is not None]
    if seen:
        grid[1].plot(*zip(*seen, strict=True), color=colour, marker=marker)


def bars(axes: plt.Axes, found: list[Record], probes: list[str]) -> None:
    """What is of other data than the run's own is drawn where all runs' results are of the same."""
    width = 0.8 / len(found)
    alike = [probe for probe in probes if len({each.results[probe].get("data") for each in found if probe in each.results}) == 1]
    for number, each in enumerate(found):
        for place, probe in enumerate(probes):
            if (result := each.results.get(probe)) and (probe in alike or not each.elsewhere(result)):
                left = place + (number - (len(found) - 1) / 2) * width
                axes.bar(left, 100 * result["top1"], width, yerr=reach(result), color=f"C{number % 10}", capsize=3)
    known = any(result.get("interval") for each in found for result in each.results.values())
    axes.set(title="Probes on the test split" + ", 95 % intervals" * known, ylabel="top-1, %", xlim=(-0.5, len(probes) - 0.5))
    axes.set_xticks(range(len(probes)), [NAMES.get(probe, probe).replace("nearest ", "nearest\n") for probe in probes])


def reach(result: dict[str, Any]) -> list[list[float]] | None:
    """How far the interval goes below and above the accuracy, in per cent; None where it is not known."""
    if not result.get("interval"):
        return None
    low, high = result["interval"]
    return [[100 * max(0.0, result["top1"] - low)], [100 * max(0.0, high - result["top1"])]]
