"""What probes found, for people and programs: a table, ``eval-<probe>.json``, scalars for TensorBoard."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from amdim.engine.json_file import as_json
from amdim.engine.monitor.metrics_logger import in_words
from amdim.errors import warn
from amdim.evaluation.run_record import way
from amdim.shards.atomic import atomic

ROWS = {
    "top1": "this encoder",
    "top1_random_init": "same encoder, random initialisation",
    "top1_raw_pixels": "raw pixels, at most 32 x 32",
}
FEW = {"fractions": "top1", "fractions_random_init": "top1_random_init", "fractions_raw_pixels": "top1_raw_pixels"}
Result = dict[str, Any]


def file_of(run: Path, probe: str, split: str = "val") -> Path:
    """Return where a probe's result goes: that of the split val alone has no split in its name."""
    return run / f"eval-{probe}{'' if split == 'val' else f'-{split}'}.json"


def write(path: Path, result: Result) -> None:
    """Whole or not at all."""
    with atomic(path) as file:
        file.write(as_json(result))


def write_board(run: Path, results: list[Result], own: str) -> None:
    """Accuracies as scalars at the checkpoint's step; a warning where the disk has no room for them.

    Those of other data than the run's ``own`` have their name, and those of another way than the default its words.
    """
    threading.excepthook = in_words
    try:
        with SummaryWriter(str(run)) as board:
            for result in results:
                for name, value in scalars(result, own).items():
                    board.add_scalar(name, value, result["step"])
    except OSError as error:
        warn(f"{run}: TensorBoard's events cannot be written ({error.strerror or error}); results are in eval-<probe>.json")


def scalars(result: Result, own: str) -> dict[str, float]:
    """Accuracies by their names for TensorBoard."""
    data, probe = Path(result["data"]).name, result["probe"]
    on = f"_on_{data}" if own and data != Path(own).name else ""
    how = f"_{way(result)}".replace("'", "").replace(",", "").replace(" ", "_") if way(result) else ""
    found = {name: result[name] for name in (*ROWS, "top5")}
    for key, name in FEW.items():
        found |= {f"{name}_{part}_of_the_labels": top1 for part, top1 in result[key].items()}
    on = f"_{result['split']}{on}" if result.get("split", "val") != "val" else on
    return {f"eval/{probe}_{name}{how}{on}": value for name, value in found.items() if value is not None}


def announce(results: list[Result], console: Console) -> None:
    first = results[0]
    whose = ", averaged weights" if first["averaged"] else ""
    which = "" if first["split"] == "val" else f" of split {first['split']}"
    words = f"{first['run']}, step {first['step']:,}{whose}, on {first['data']}: {first['n_test']:,} test images{which}"
    console.print(words, markup=False)
    show(results, console)


def show(results: list[Result], console: Console) -> None:
    table = Table("top-1", *("\n".join(filter(None, (result["probe"], way(result)))) for result in results))
    add_row(table, ROWS["top1"], [result["top1"] for result in results])
    table.add_row("  95 % interval", *("{:.2%} – {:.2%}".format(*result["interval"]) for result in results))
    add_row(table, "  top-5", [result["top5"] for result in results])
    for key in ("top1_random_init", "top1_raw_pixels"):
        add_row(table, ROWS[key], [result[key] for result in results])
    for part, images in results[0]["fractions_images"].items():
        for key, name in FEW.items():
            add_row(table, f"{ROWS[name]}, {images:,} labels", [result[key][part] for result in results])
    console.print(table)
    for result in results:
        console.print(hardest(result), soft_wrap=True, highlight=False, markup=False)


def add_row(table: Table, title: str, values: list[float | None]) -> None:
    """Where there is any value."""
    if any(value is not None for value in values):
        table.add_row(title, *map(percent, values))


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def hardest(result: Result, classes: int = 3) -> str:
    """The classes with the lowest accuracy, and what they are taken for."""
    tested = [i for i, accuracy in enumerate(result["per_class"]) if accuracy is not None]
    worst = sorted(tested, key=lambda i: result["per_class"][i])[:classes]
    return f"{result['probe']}, hardest classes: {'; '.join(about(i, result) for i in worst)}"


def about(i: int, result: Result) -> str:
    words = f"{result['classes'][i]} {result['per_class'][i]:.1%}"
    if result["confusion"] is None:
        return words
    row = result["confusion"][i]
    other = max((j for j in range(len(row)) if j != i), key=row.__getitem__)
    return f"{words} (taken for {result['classes'][other]} {row[other] / sum(row):.1%})" if row[other] else words
