"""Options of the training command that change a field of the preset, and their ranges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from errors import UsageError
from model.mixture import ALPHA

Mixture = Annotated[int | None, typer.Option(min=0, help="K mixture features: emergent segmentation, docs/mixtures.md.")]
MixtureMode = Annotated[
    Literal["join", "replace"] | None, typer.Option(help="Whether mixtures join r1 to r7.", show_default="replace")
]
MixtureAlpha = Annotated[float | None, typer.Option(help="Weight of their entropy.", show_default=str(ALPHA))]
Optimizer = Annotated[
    Literal["adam", "adamw", "lamb", "lars"] | None, typer.Option(help="Whose steps: docs/recipes.md.", show_default="adam")
]
DecayBiases = Annotated[
    bool | None, typer.Option(help="Whether biases and normalisation decay too, as in the original.", show_default="they do")
]
Schedule = Annotated[
    Literal["cosine", "step"] | None, typer.Option(help="After the warm-up: to zero, or a fifth at each milestone.")
]
Warmup = Annotated[int | None, typer.Option(min=0, help="Updates over which the rate rises.")]
GradClip = Annotated[float | None, typer.Option(help="Longest gradient, of all weights together.", show_default="any")]
Ema = Annotated[float | None, typer.Option(help="Decay of a moving average of the weights.", show_default="none is kept")]
CacheDir = Annotated[
    Path | None, typer.Option(help="Where shards from a URL are kept: docs/remote.md.", show_default="amdim in ~/.cache")
]
CacheGb = Annotated[float | None, typer.Option(help="Its size.", show_default="half of what is free on its disk")]


def check_positive(options: dict[str, float | None]) -> None:
    """
    Raises:
        UsageError: an option that was given is not positive and finite; names it.
    """
    for name, value in options.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{name} {value:g}: is not positive and finite")
