"""Options of the evaluation command: how probes are trained, and what it does beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amdim.engine import runs
from amdim.engine.train_options import positive
from amdim.errors import UsageError
from amdim.evaluation.compare_runs import FILE as COMPARED
from amdim.evaluation.probes import finetune

Probes = Annotated[str, typer.Option("--probe", help="linear, mlp, knn, finetune, or several with commas.")]
Run = Annotated[str | None, typer.Option(help="A run's name or path.", show_default="the latest")]
CheckpointDir = Annotated[Path | None, typer.Option(help="A checkpoint's directory.", show_default="the run's newest")]
Data = Annotated[
    str | None,
    typer.Option(help="A shard set: a path, NAME for data/NAME, or a URL.", show_default="what the run was trained on"),
]
Gpus = Annotated[int | None, typer.Option(help="0 is the CPU.", show_default="one if there is one")]
Curve = Annotated[bool, typer.Option("--curve", help="Draw the training curve into the run instead.")]
Imported = Annotated[Path | None, typer.Option("--import-amdim-public", help="A file of amdim-public to make a run of.")]
Out = Annotated[str | None, typer.Option(help="The run that an import makes.")]
Segments = Annotated[bool, typer.Option("--segment", help="Measure and draw the mixture's segmentation instead.")]
LastWeights = Annotated[bool, typer.Option("--last-weights", help="The last weights of a run with --ema, not their average.")]
Compared = Annotated[list[str] | None, typer.Argument(help="Runs to compare, with --compare.", show_default=False)]
Compare = Annotated[bool, typer.Option("--compare", help="Print a table of the runs that follow, and draw compare.png.")]
Export = Annotated[
    Path | None, typer.Option("--export", help="Write the encoder: FILE.safetensors, FILE.onnx or FILE.pt2, and its card.")
]
FeaturesOut = Annotated[
    Path | None, typer.Option("--features", help="Write r1, labels and keys of all images of --data: FILE.npz.")
]
Protocol = Annotated[str, typer.Option(help="cached features, or the paper's: new views in every epoch; docs/probes.md.")]
ProbeViews = Annotated[
    int | None,
    typer.Option("--views", min=0, help="Augmented views of each training image too, for linear and mlp.", show_default="none"),
]
Fraction = Annotated[str | None, typer.Option(help="Also with few labels: parts of them, as in 0.01,0.1.")]
ProbeEpochs = Annotated[
    float | None, typer.Option(callback=positive, help="Of mlp, finetune and --protocol paper.", show_default="the probe's")
]
ProbeBatch = Annotated[
    int | None, typer.Option("--batch-size", min=2, help="Of fine-tuning and --protocol paper.", show_default="pretraining's")
]
FinetuneRate = Annotated[
    float | None,
    typer.Option("--finetune-lr", callback=positive, help="Peak rate.", show_default=f"{finetune.RATE:g}"),
]
Split = Annotated[str, typer.Option(help="The split to test on, where the set has more than one.")]
Baselines = Annotated[bool, typer.Option(help="Random initialisation and raw pixels beside it.")]
KeepFeatures = Annotated[bool, typer.Option("--keep-features", help="In the run's features/, for the next evaluation.")]
Report = Annotated[bool, typer.Option("--report", help="Write report.html into the run: all there is to see of it, in one page.")]


def runs_to_compare(compare: bool, names: list[str] | None) -> list[Path]:
    """Their directories.

    Raises:
        UsageError: runs were named without being asked for.
    """
    names = names or []
    if not compare:
        raise UsageError(f"{names[0]}: an argument without its option; give --run {names[0]}, or --compare before runs")
    named = [name.rstrip("/") for name in names if Path(name).name != COMPARED]  # `runs/*` has the picture of the last time, too
    return [runs.run_path(name, "--compare") for name in named]
