"""Which mixtures segment best, and what do they do to the linear probe?  python -m bench.mixtures [--data data/shapes]

Trains preset demo with each setting on the CPU, and prints for each: agreement of the posterior with the masks of training images
(by which a setting may be chosen) and of validation images, the linear probe, and losses. Baselines on the features of the last
run stand below. Settings are words: components, mode, alpha; 0 components is training without mixtures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.learns import call
from bench.machine import describe
from engine.logs import read_rows
from errors import UsageError, run_app

SETTINGS = ["0", "4,join,1", "4,replace,1", "3,replace,0.3", "2,join,0.3", "2,replace,0.3"]
METRICS = ("iou_best", "iou_fixed", "ari")


def options(setting: str) -> list[str]:
    """The options of train.py for one setting."""
    names = ("--mixture", "--mixture-mode", "--mixture-alpha")
    values = setting.split(",")
    if len(values) not in (1, 3):
        raise UsageError(f"{setting}: give components, mode and alpha, as in 2,replace,0.3; or 0")
    return [word for pair in zip(names, values, strict=False) for word in pair]


def measure(data: Path, run: Path, setting: str, steps: int | None) -> dict[str, Any]:
    """Trains where there is no finished run yet, then probes and segments."""
    length = ["--steps", str(steps)] if steps else []
    call(
        "train.py",
        "--data",
        str(data),
        "--preset",
        "demo",
        "--gpus",
        "0",
        "--run",
        str(run),
        "--quiet",
        *options(setting),
        *length,
    )
    call("eval.py", "--probe", "linear", "--run", str(run), "--gpus", "0")
    result = {"linear": json.loads((run / "eval-linear.json").read_text()), "row": read_rows(run)[-1]}
    if setting != "0":
        call("eval.py", "--segment", "--run", str(run), "--gpus", "0")
        result["segment"] = json.loads((run / "eval-segment.json").read_text())
    return result


def line(name: str, train: dict[str, Any] | None, test: dict[str, Any] | None, rest: str = "") -> str:
    cells = [f"{scores[m]:9.3f}" if scores and scores[m] is not None else " " * 9 for scores in (train, test) for m in METRICS]
    return f"{name:24}{''.join(cells)}  {rest}"


def main(
    settings: Annotated[list[str] | None, typer.Argument(help="Components, mode and alpha, as in 2,replace,0.3.")] = None,
    data: Annotated[Path, typer.Option(help="A set with masks.")] = Path("data/shapes"),
    runs: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/mixtures"),
    steps: Annotated[int | None, typer.Option(help="Steps a run.", show_default="the preset's")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    if not (data / "dataset.json").exists():
        call("-m", "shards", "build", "shapes", "--out", str(data))
    print(f"{describe()}\n{data}, preset demo, one seed; iou_best, iou_fixed and ari on training masks, then on validation masks")
    found: dict[str, Any] = {}
    for setting in settings or SETTINGS:
        found = measure(data, runs / setting.replace(",", "-"), setting, steps)
        segment = found.get("segment", {"methods": {}, "methods_train": {}})
        train, test = (segment[key].get("mixture") for key in ("methods_train", "methods"))
        row = found["row"]
        losses = f"1→7 {row['loss_1t7']:.2f} mixture {row['loss_mixture']:.2f}"
        print(line(setting, train, test, f"linear {found['linear']['top1']:.1%} {losses}"), flush=True)
    if "segment" in found:
        print(f"n = {found['segment']['n_train']:,} training images, {found['segment']['n_test']:,} validation images")
        for name, scores in found["segment"]["methods"].items():
            print(line(name, found["segment"]["methods_train"][name], scores))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.mixtures")
