"""The operations of a policy in the DALI graph, without branches: a step does all of them, and what is not drawn changes nothing.

Beside the decoder this is most of the graph: near a hundred small operators a step, two steps a view. What is drawn enters as
arguments of operators, as everywhere in the graph. What two of them need of a histogram, DALI's ``equalize`` and reductions have.

Shape letters: N views, S image side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.types import DALIInterpType

from amdim.pipeline.augment import color_jitter
from amdim.pipeline.augment.autoaugment import STEPS, AutoAugmentParams, as_steps
from amdim.pipeline.augment.autoaugment_cpu import FILL

INPUTS = (
    "affine",
    "darker",
    "finer",
    "grain",
    "stretch",
    "equalize",
    "own_gray",
    "mean_gray",
    "smooth",
    "enhance",
    "corner",
    "extent",
)
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def tables(policy: AutoAugmentParams, side: int) -> dict[str, np.ndarray]:
    """What the steps take of the draws, by the names of ``INPUTS``: (N, 2, ...), factors as matrices for ``coord_transform``."""
    drawn = as_steps(policy, side)

    def diagonal(factor: np.ndarray) -> np.ndarray:
        return factor[..., None, None] * np.eye(3)

    own, mean, smooth = np.moveaxis(drawn.toward, -1, 0)
    ones = np.ones((3, 1))
    return {
        "affine": drawn.matrix,
        "darker": -drawn.threshold[..., None] * np.ones(3),
        "finer": diagonal(1 / drawn.grain),
        "grain": diagonal(drawn.grain),
        "stretch": diagonal(drawn.stretch),
        "equalize": diagonal(drawn.equalize),
        "own_gray": own[..., None, None] * ones,
        "mean_gray": mean[..., None, None] * ones,
        "smooth": diagonal(smooth),
        "enhance": diagonal(drawn.factor),
        "corner": drawn.hole[..., :2],
        "extent": drawn.hole[..., 2:] - drawn.hole[..., :2],
    }


def operated(x: Any, side: int, device: str, drawn: dict[str, Any]) -> Any:
    """Whole levels (S, S, 3) after both steps."""
    for k in range(STEPS):
        x = step(x, side, device, {name: drawn[name][k] for name in INPUTS})
    return x


def step(x: Any, side: int, device: str, drawn: dict[str, Any]) -> Any:
    x = fn.warp_affine(x, matrix=drawn["affine"], interp_type=DALIInterpType.INTERP_NN, fill_value=0)
    x = x + whole(fn.coord_transform(x, T=drawn["darker"]) >= 0) * (255.0 - 2.0 * x)
    x = fn.coord_transform(dmath.floor(fn.coord_transform(x, M=drawn["finer"])), M=drawn["grain"])
    x = (
        x
        + fn.coord_transform(stretched(x) - x, M=drawn["stretch"])
        + fn.coord_transform(equalized(x, side) - x, M=drawn["equalize"])
    )
    dull = dulled(x, side, device, drawn)
    x = dmath.clamp(dmath.floor(dull + fn.coord_transform(x - dull, M=drawn["enhance"]) + color_jitter.NUDGE), 0.0, 255.0)
    return fn.erase(x, anchor=drawn["corner"], shape=drawn["extent"], axes=[0, 1], fill_value=list(FILL))


def whole(x: Any) -> Any:
    return fn.cast(x, dtype=types.FLOAT)


def stretched(x: Any) -> Any:
    """Each channel's levels from the darkest to the brightest, as 0 to 255."""
    low, high = (reduce(x, axes=[0, 1], keep_dims=True) for reduce in (fn.reductions.min, fn.reductions.max))
    level = dmath.floor((x - low) * (255.0 / dmath.max(high - low, 1.0)) + color_jitter.NUDGE)
    return level + whole(high == low) * x  # one level alone stays, where ``level`` is 0


def equalized(x: Any, side: int) -> Any:
    """Each level by how many pixels are darker, in Pillow's steps of whole pixels; those of the brightest do not count.

    DALI's operator counts pixels that are darker or as dark, in steps of ``rest`` / 255 and without those of the darkest. Of the
    inverted image it gives what is wanted here, which is then scaled to Pillow's steps: one level off at most.
    """
    darker = 255.0 - whole(fn.equalize(fn.cast(255.0 - x, dtype=types.UINT8)))
    brightest = whole(x == fn.reductions.max(x, axes=[0, 1], keep_dims=True))
    rest = (side * side - fn.reductions.sum(brightest, axes=[0, 1], keep_dims=True)) * (1 / 255)
    width = dmath.floor(rest + color_jitter.NUDGE)
    level = dmath.clamp(dmath.floor(darker * (rest / dmath.max(width, 1.0)) + 0.5), 0.0, 255.0)
    return level + whole(width == 0) * (x - level)


def dulled(x: Any, side: int, device: str, drawn: dict[str, Any]) -> Any:
    """What an enhancer starts from: the pixel's own gray, the mean gray, the smoothed image, or black."""
    gray = dmath.floor(fn.coord_transform(x, M=list(color_jitter.LUMA)) + 0.5)
    mean = dmath.floor(fn.reductions.mean(gray, axes=[0, 1], keep_dims=True) + 0.5)
    smooth = dmath.floor(fn.filter(x, types.Constant(SMOOTH, device=device)) + 0.5)
    inner = np.pad(np.ones((side - 2, side - 2, 1), np.float32), ((1, 1), (1, 1), (0, 0)))
    smooth = x + types.Constant(inner, device=device) * (smooth - x)
    return (
        fn.coord_transform(gray, M=drawn["own_gray"])
        + fn.coord_transform(mean, M=drawn["mean_gray"])
        + fn.coord_transform(smooth, M=drawn["smooth"])
    )
