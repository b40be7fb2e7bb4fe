"""Runs beside one another: a table of what they were and what came of them, and one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from amdim.errors import UsageError
from amdim.evaluation.figures import save_figure
from amdim.evaluation.run_record import NAMES, TERMS, RunRecord, read_record, terms, top1, way

FILE = "compare.png"
NONE = "–"
LINES = ("-", "--", ":", "-.")  # a turn for each ten runs, as there are ten colours


def compare(directories: list[Path], console: Console) -> None:
    """Prints the table, and draws the picture ``compare.png`` beside the first run's directory.

    Raises:
        UsageError: fewer than two runs, or a directory without one.
    """
    if len(directories) < 2:
        raise UsageError("--compare: give two runs or more, as in --compare runs/a runs/b")
    found = named([read_record(each) for each in directories], directories)
    console.print(tabulate(found))
    path = directories[0].parent / FILE
    save_figure(picture(found), path, dpi=110)
    console.print(f"picture: {path}", markup=False)


def named(found: list[RunRecord], directories: list[Path]) -> list[RunRecord]:
    """By their names, or by their paths where two have the same."""
    if len({each.name for each in found}) == len(found):
        return found
    return [each._replace(name=str(directory)) for each, directory in zip(found, directories, strict=True)]


def tabulate(found: list[RunRecord]) -> Table:
    """A column a run."""
    table = Table("run", *(escape(each.name) for each in found))
    table.add_row("preset", *(str(each.config["preset"]) for each in found))
    table.add_row("data", *(escape(each.data) or NONE for each in found))
    table.add_row("steps", *map(progress, found))
    table.add_row("images/s, median", *map(speed, found))
    table.add_row("last loss", *(f"{each.rows[-1]['loss']:.3f}" if each.rows else NONE for each in found))
    for name, title in TERMS.items():
        values = [last(each, name) for each in found]
        if set(values) != {NONE}:
            table.add_row(f"last loss {title}", *values)
    for probe in all_probes(found):
        sizes = {each.results[probe].get("n_test") for each in found if probe in each.results}
        cells = (escape(probed(each, probe, len(sizes) > 1)) for each in found)
        table.add_row(f"{NAMES.get(probe, probe)}, top-1", *cells)
    return table


def last(each: RunRecord, name: str) -> str:
    """The last value of a term, and whether it was trained."""
    label = terms(each.rows, each.config).get(name)
    return NONE if label is None else f"{each.rows[-1][name]:.3f}{label.removeprefix(TERMS[name])}"


def probed(each: RunRecord, probe: str, sized: bool) -> str:
    """Top-1, and what sets it apart; where sets have different sizes, of how many images."""
    if (result := each.results.get(probe)) is None:
        return NONE
    size = [f"{result['n_test']:,} images"] if sized and "n_test" in result else []
    return ", ".join([top1(result), *each.marks(result), *size])


def progress(each: RunRecord) -> str:
    planned = each.config["steps"]
    return f"{each.step:,}" if each.step == planned else f"{each.step:,} of {planned:,}"


def speed(each: RunRecord) -> str:
    return NONE if each.images_per_s is None else f"{each.images_per_s:,.0f}"


def all_probes(found: list[RunRecord]) -> list[str]:
    return list(dict.fromkeys(probe for each in found for probe in each.results))


def picture(found: list[RunRecord]) -> Figure:
    """Losses, online probes, and what probes found afterwards, with their intervals."""
    groups = grouped(found)
    widths = [5, 5, max(5, 1.4 * len(groups))] if groups else [5.5, 5.5]  # inches
    size = {"figsize": (sum(widths), 4.2), "width_ratios": widths, "layout": "constrained"}
    figure, grid = plt.subplots(1, len(widths), **size)
    for number, each in enumerate(found):
        curves(grid, each, *pen(number))
    grid[0].set(title="Loss: lower is better, for one batch and objective", xlabel="step", ylabel="nats")
    grid[1].set(title="Online linear probe on augmented training views", xlabel="step", ylabel="top-1, %")
    if groups:
        bars(grid[2], found, groups)
    for axes in grid:
        axes.grid(alpha=0.3)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def pen(number: int) -> tuple[str, str]:
    return f"C{number % 10}", LINES[number // 10 % len(LINES)]


def curves(grid: list[plt.Axes], each: RunRecord, colour: str, dashes: str) -> None:
    marker = "." if len(each.rows) < 5 else None
    steps_, losses = [row["step"] for row in each.rows], [row["loss"] for row in each.rows]
    grid[0].plot(steps_, losses, dashes, color=colour, marker=marker, label=plain(each.name))
    seen = [(row["step"], 100 * row["linear_top1"]) for row in each.rows if row["linear_top1"] is not None]
    if seen:
        grid[1].plot(*zip(*seen, strict=True), dashes, color=colour, marker=marker)


def grouped(found: list[RunRecord]) -> list[tuple[str, Kind]]:
    """Probes, ways of training them and sets of test images: other accuracies are not to be compared."""
    each = [(probe, alike(run.results[probe])) for probe in all_probes(found) for run in found if probe in run.results]
    return list(dict.fromkeys(each))


def bars(axes: plt.Axes, found: list[RunRecord], groups: list[tuple[str, Kind]]) -> None:
    width, stale = 0.8 / len(found), False
    for place, (probe, kind) in enumerate(groups):
        for number, each in enumerate(found):
            result = each.results.get(probe)
            if result is None or alike(result) != kind:
                continue
            left, older = place + (number - (len(found) - 1) / 2) * width, result.get("step", each.step) != each.step
            how = {"color": pen(number)[0], "hatch": "//" if older else "", "edgecolor": "white"}
            axes.bar(left, 100 * result["top1"], width, yerr=reach(result), capsize=3, **how)
            stale = stale or older
    known = any(result.get("interval") for each in found for result in each.results.values())
    title = "Probes on the test split" + ", 95 % intervals" * known + "; hatched: of an earlier step" * stale
    axes.set(title=title, ylabel="top-1, %", xlim=(-0.5, len(groups) - 0.5))
    labels = [f"{NAMES.get(probe, probe)}\n{kind.words}".replace("nearest ", "nearest\n") for probe, kind in groups]
    axes.set_xticks(range(len(groups)), [plain(label) for label in labels])


class Kind(NamedTuple):
    """What accuracies must have in common to be compared; ``images`` tells sets of one name apart."""

    words: str
    images: str


def alike(result: dict[str, Any]) -> Kind:
    data = Path(str(result.get("data") or "its data")).name
    how = "".join(f"\n{each}" for each in way(result).split(", ") if each)
    images = result.get("n_test")
    size = f"\n{images:,} images" if images else ""
    return Kind(f"on {data}{size}{how}", result.get("test_images", ""))


def plain(text: str) -> str:
    """Text that matplotlib takes for nothing else: neither for mathematics nor for a curve without a name."""
    return "\u200b" * text.startswith("_") + text.replace("$", r"\$")


def reach(result: dict[str, Any]) -> list[list[float]] | None:
    """How far the interval goes below and above the accuracy, in per cent; None where it is not known."""
    if not result.get("interval"):
        return None
    low, high = result["interval"]
    return [[100 * max(0.0, result["top1"] - low)], [100 * max(0.0, high - result["top1"])]]
