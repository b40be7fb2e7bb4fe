"""Which mixtures segment best, and what do they do to the linear probe?  python -m bench.mixtures [--data data/shapes]

Trains preset demo with each setting on the CPU (what runs hold already is taken as it is) and prints for each the linear probe,
the losses, and how the posterior agrees with the masks of training images (by which a setting may be chosen) and of validation
images; below it baselines with as many components. Settings are words: components, mode, alpha; 0 is training without mixtures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from amdim.engine.monitor.metrics_logger import read_rows
from amdim.errors import UsageError, run_app
from amdim.evaluation.segmentation.masks import SIDE, read_masks
from amdim.evaluation.segmentation.receptive_field import FIELDS, pool, upsample
from amdim.evaluation.segmentation.segmentation_metrics import best_iou, overlap
from amdim.pipeline import RECIPES
from bench.learns import call
from bench.machine import describe

SETTINGS = ["0", "4,join,1", "4,replace,1", "3,replace,0.3", "2,replace,1", "2,join,0.3", "2,replace,0.3"]
METRICS = ("iou_best", "iou_fixed", "ari")


def options(setting: str) -> list[str]:
    """The options of train.py for one setting."""
    names = ("--mixture", "--mixture-mode", "--mixture-alpha")
    values = setting.split(",")
    if len(values) not in (1, 3):
        raise UsageError(f"{setting}: give components, mode and alpha, as in 2,replace,0.3; or 0")
    return [word for pair in zip(names, values, strict=False) for word in pair]


def measure(data: Path, run: Path, setting: str, more: list[str]) -> dict[str, Any]:
    """Trains, probes and segments; what the run holds already is read and not done again."""
    common = ("--data", str(data), "--run", str(run), "--gpus", "0")
    call("train.py", *common, "--preset", "demo", "--quiet", *options(setting), *more)
    wanted = {"linear": ("--probe", "linear")} | ({"segment": ("--segment",)} if setting != "0" else {})
    for name, words in wanted.items():
        if not (run / f"eval-{name}.json").exists():
            call("eval.py", *words, *common)
    return {name: json.loads((run / f"eval-{name}.json").read_text()) for name in wanted} | {"row": read_rows(run)[-1]}


def ceiling(data: Path) -> tuple[float, float]:
    """IoU and threshold of the masks of validation themselves, seen at 7x7: no division of the locations could do much better."""
    field = FIELDS[SIDE]
    masks = read_masks(data, "val", RECIPES["shapes64"])
    soft = upsample(pool(masks[:, None].float(), field), field, SIDE, SIDE)[:, 0]
    return max((best_iou(overlap((soft > t).long(), masks, 2)).mean().item(), t) for t in (0.3, 0.4, 0.5, 0.6))


def show(segment: dict[str, Any]) -> None:
    """A row for each method: its scores on training masks, then on validation masks."""
    print(f"{'':24}{segment['n_train']:>15,} training images{segment['n_test']:>15,} validation images")
    for name, test in segment["methods"].items():
        values = [scores[metric] for scores in (segment["methods_train"][name], test) for metric in METRICS]
        print(f"  {name:24}" + "".join(" " * 10 if value is None else f"{value:10.3f}" for value in values), flush=True)


def main(
    settings: Annotated[list[str] | None, typer.Argument(help="Components, mode and alpha, as in 2,replace,0.3.")] = None,
    data: Annotated[Path, typer.Option(help="A set with masks.")] = Path("data/shapes"),
    runs: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/mixtures"),
    steps: Annotated[int | None, typer.Option(help="Steps a run.", show_default="the preset's")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every run.")] = 0,
    recipe: Annotated[str, typer.Option(help="Views, as train.py takes them.")] = "shapes32-fused",
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    if not (data / "dataset.json").exists():
        call("-m", "shards", "build", "shapes", "--out", str(data))
    print(f"{describe()}\n{data}, preset demo, views {recipe}, seed {seed}")
    print("iou_best, iou_fixed and ari on training masks, then on validation masks")
    given = {"--steps": steps, "--recipe": recipe, "--seed": seed}
    more = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    for setting in settings or SETTINGS:
        found = measure(data, runs / f"{setting.replace(',', '-')}-{Path(recipe).stem}-seed{seed}", setting, more)
        row = found["row"]
        print(f"{setting}: linear {found['linear']['top1']:.1%}, 1→7 {row['loss_1t7']:.2f}, mixture {row['loss_mixture']:.2f}")
        if "segment" in found:
            show(found["segment"])
    iou, threshold = ceiling(data)
    print(f"validation masks at 7x7: iou {iou:.3f}, where more than {threshold} of a field is object")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.mixtures")
