"""Options of the training command, and what a number of them must be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from amdim.engine import config_file
from amdim.errors import UsageError
from amdim.model.mixture import ALPHA


def positive(parameter: typer.CallbackParam, value: float | None) -> float | None:
    """
    Raises:
        UsageError: an option that was given is not positive and finite; names it.
    """
    if value is not None and not 0 < value < math.inf:
        raise UsageError(f"{parameter.opts[0]} {value:g}: is not positive and finite")
    return value


Data = Annotated[str, typer.Option(help="A shard set: a path, NAME for data/NAME, or a URL.")]
Preset = Annotated[str | None, typer.Option(help="A row of --presets; each data set has its default.")]
Gpus = Annotated[int | None, typer.Option(help="GPUs to train on; 0 is the CPU.", show_default="one if there is one")]
Procs = Annotated[int | None, typer.Option(min=1, help="Processes on the CPU, with --gpus 0.", show_default="one")]
Run = Annotated[str | None, typer.Option(help="Name of the run.", show_default="data, preset and date")]
Epochs = Annotated[float | None, typer.Option(callback=positive, help="Length of the run.")]
Steps = Annotated[int | None, typer.Option(callback=positive, help="Length of the run in steps, instead.")]
Batch = Annotated[int | None, typer.Option("--batch-size", callback=positive, help="Global batch.")]
Rate = Annotated[float | None, typer.Option(callback=positive, help="Peak learning rate.")]
Optimizer = Annotated[
    Literal["adam", "adamw", "lamb", "lars"] | None, typer.Option(help="The optimizer: docs/recipes.md.", show_default="adam")
]
DecayBiases = Annotated[
    bool | None, typer.Option(help="Whether biases and normalisation decay too, as in the original.", show_default="they do")
]
Schedule = Annotated[
    Literal["cosine", "step"] | None, typer.Option(help="After the warm-up: to zero, or a fifth at each milestone.")
]
Warmup = Annotated[int | None, typer.Option(min=0, help="Updates over which the rate rises.")]
GradClip = Annotated[
    float | None, typer.Option(callback=positive, help="Longest gradient, of all weights together.", show_default="any")
]
Ema = Annotated[float | None, typer.Option(help="Decay of a moving average of the weights.", show_default="none is kept")]
Mixture = Annotated[int | None, typer.Option(min=0, help="K mixture features: emergent segmentation, docs/mixtures.md.")]
MixtureMode = Annotated[
    Literal["join", "replace"] | None,
    typer.Option(help="Beside the term of r1 to r7, or in its place.", show_default="replace"),
]
MixtureAlpha = Annotated[
    float | None,
    typer.Option(callback=positive, help="Weight of their posterior's entropy.", show_default=str(ALPHA)),
]
CacheDir = Annotated[
    Path | None, typer.Option(help="Where shards from a URL are kept: docs/remote.md.", show_default="amdim in ~/.cache")
]
CacheGb = Annotated[
    float | None,
    typer.Option(callback=positive, help="Size of that cache.", show_default="half of what is free on its disk"),
]
Recipe = Annotated[str | None, typer.Option(help="Views, not the preset's: a name or FILE.toml, docs/views.md.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of weights, order and views.")]
Amp = Annotated[str, typer.Option(help="auto, bf16, fp16 or off.")]
Pixels = Annotated[str, typer.Option(help="What makes the views: dali, torch (on the CPU), or auto.")]
Kernel = Annotated[str, typer.Option("--adam", help="Whose fused Adam: torch or apex.")]
Compiled = Annotated[str, typer.Option("--compile", help="torch.compile of the encoder: auto, on or off.")]
Recompute = Annotated[
    bool, typer.Option("--checkpoint-activations", help="Less memory: compute the encoder's maps twice, not keep them.")
]
Resume = Annotated[str, typer.Option(help="auto, never, or a checkpoint's directory.")]
Init = Annotated[str | None, typer.Option(help="A run, or a checkpoint's directory, whose weights to start from.")]
SaveEvery = Annotated[str, typer.Option(help="Steps (500) or minutes (30m) between checkpoints.")]
Compress = Annotated[
    Literal["off", "bf16"], typer.Option(help="Format in which gradients travel between ranks: bf16 halves the bytes.")
]
MaxRestarts = Annotated[int, typer.Option(min=0, help="Restarts after ranks were lost, from the last checkpoint.")]
Timeout = Annotated[float, typer.Option(callback=positive, min=1, help="Seconds to wait for a rank that does not answer.")]
Keep = Annotated[int, typer.Option(min=1, help="Checkpoints that are kept: the last ones.")]
File = Annotated[  # what it holds stands where options' defaults do before the command begins
    Path | None,
    typer.Option(callback=config_file.use, is_eager=True, help="Settings: a TOML file, or the config.json of a run."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Take two steps, say what the run would cost, and exit.")]
Presets = Annotated[bool, typer.Option("--presets", help="Print the presets and exit.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings and errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]  # run_app reads it

# The options that change a field of the preset, by its name.
OF_PRESET = [
    "batch",
    "epochs",
    "lr",
    "optimizer",
    "decay_biases",
    "schedule",
    "warmup",
    "grad_clip",
    "ema",
    "mixture",
    "mixture_mode",
    "mixture_alpha",
]
OF_RUN = ["seed", "amp", "save_every", "init", "pixels", "keep", "kernel", "compiled", "compress"]  # and those of a run
