"""The DALI graph: encoded bytes and drawn parameters in, normalised views out, or what ``painted`` makes them of.

An image is decoded once; each view is then one resampling and, in a whole graph, the colours of its recipe. Nothing is random,
and nothing but ``device`` differs between a CPU and a GPU. What is drawn enters as arguments of operators, which stay on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIInterpType

from amdim.pipeline.augment import autoaugment_dali, color_jitter, color_jitter_affine
from amdim.pipeline.augment.jitter_params import JitterParams
from amdim.pipeline.augment.recipes import Recipe, normalisation
from amdim.pipeline.augment.view_params import ViewParams


def build(
    source: Callable[[], Sequence[Any]],
    recipe: Recipe,
    views: int,
    batch: int,
    device: str,
    device_id: int | None,
    threads: int,
    prefetch: int = 2,
    whole: bool = True,
) -> Pipeline:
    """A pipeline whose outputs are ``views`` batches of (S, S, 3) images: float16 on the GPU, float32 on the CPU; or uint8.

    With no views, its output is the decoded images (H, W, 3) uint8.

    Args:
        source: called once a batch; returns the encoded images (a list of uint8 arrays) and then, for each view, ``feed(draws)``.
        device: "cpu" or "gpu"; on the GPU, decoding is DALI's "mixed" operator.
        whole: if False, views end as they are resampled, in levels, and ``painted`` does the rest.
    """
    pipe = Pipeline(batch_size=batch, num_threads=threads, device_id=device_id, prefetch_queue_depth=prefetch)
    width = len(input_names(recipe, whole))
    with pipe:
        encoded, *inputs = fn.external_source(source=source, num_outputs=1 + views * width, batch=True)
        image = fn.decoders.image(
            encoded,
            device="mixed" if device == "gpu" else "cpu",
            output_type=types.RGB,
            adjust_orientation=False,  # pixels are stored upright
            jpeg_fancy_upsampling=True,  # the CPU decoder's chroma, on the GPU too
        )
        grouped = [inputs[i : i + width] for i in range(0, len(inputs), width)]
        named = [dict(zip(input_names(recipe, whole), each, strict=True)) for each in grouped]
        made = [view(image, recipe, device, each) if whole else resampled(image, recipe, each) for each in named]
        pipe.set_outputs(*(made or [image]))
    pipe.build()
    return pipe


def colour_inputs(recipe: Recipe) -> tuple[str, ...]:
    """Names of what the colour part of a view takes, in order; views that are never jittered take nothing."""
    if not (recipe.jitter_p or recipe.gray_p):
        return ()
    return ("gain", "centre") if recipe.color == "fused" else ("factor", "own", "mean", "hue", "keep", "gray")


def input_names(recipe: Recipe, whole: bool = True) -> tuple[str, ...]:
    """Names of all that a view takes, in order."""
    turn = ("turn",) if recipe.transpose else ()
    if not whole:
        return ("window", *turn)
    operations = autoaugment_dali.INPUTS if recipe.policy != "none" else ()
    light = ("light",) if recipe.lighting else ()
    return ("window", *turn, *operations, *colour_inputs(recipe), *light)


def feed(recipe: Recipe, draws: ViewParams, whole: bool = True) -> list[np.ndarray]:
    """What the graph takes of one view's draws: (N, …) each, in the order of its inputs."""
    tables = {"window": windows(draws.box, recipe.size), "turn": turns(draws.transposed)}
    if whole:
        shift, _ = normalisation(recipe)
        tables["light"] = np.array(shift) + draws.light / recipe.std
        tables |= autoaugment_dali.tables(draws.policy, recipe.size) if recipe.policy != "none" else {}
        tables |= colour_tables(recipe, draws.jitter)
    return [np.ascontiguousarray(tables[name], np.float32) for name in input_names(recipe, whole)]


def windows(box: np.ndarray, side: int) -> np.ndarray:
    """(N, 6, 2): the box's low and high corners in the image; where in it the pass across starts and ends; and the pass down.

    What is mirrored starts at its far end. A pass takes all of the other axis: S columns are there after the one across.
    """
    near, far = box[:, :2], box[:, 2:]
    low, high = np.minimum(near, far), np.maximum(near, far)
    start, end = near - low, far - low
    none = np.zeros(len(box))
    across = np.stack([none, start[:, 1], high[:, 0] - low[:, 0], end[:, 1]], 1)
    down = np.stack([start[:, 0], none, end[:, 0], np.full(len(box), side)], 1)
    return np.concatenate([low, high, across, down], 1).reshape(-1, 6, 2)


def turns(transposed: np.ndarray) -> np.ndarray:
    """Matrices that swap rows and columns where asked: (N, 2, 3)."""
    keep = np.eye(2, 3)
    swap = np.array([[0, 1, 0], [1, 0, 0]])
    return np.where(transposed[:, None, None], swap, keep)


def colour_tables(recipe: Recipe, jitter: JitterParams) -> dict[str, np.ndarray]:
    """What colours levels 0..255 and scales them, as the matrices that ``coord_transform`` takes."""
    scale = np.array(normalisation(recipe)[1])[:, None]
    if recipe.color == "fused":
        gain, centre = color_jitter_affine.compose(jitter)
        return {"gain": gain * scale, "centre": centre * scale}
    chain = color_jitter.chain(jitter)
    factor, own, mean = np.moveaxis(chain.blend, 2, 0)[..., None, None]
    gray = chain.gray[:, None, None]
    ones = np.ones((3, 1))
    return {
        "factor": factor * np.eye(3),
        "own": own * ones,
        "mean": mean * ones,
        "hue": chain.hue[:, None] * 6,
        "keep": np.where(gray, 0, np.eye(3) * scale),
        "gray": np.where(gray, scale, 0),
    }


def view(image: Any, recipe: Recipe, device: str, drawn: dict[str, Any]) -> Any:
    """One view: the box resampled, its operations, then colours and normalisation."""
    levels = fn.cast(resampled(image, recipe, drawn), dtype=types.FLOAT)
    if recipe.policy != "none":
        levels = autoaugment_dali.operated(levels, recipe.size, device, drawn)
    shift, scale = normalisation(recipe)
    light = drawn["light"] if recipe.lighting else list(shift)
    colours = [drawn[name] for name in colour_inputs(recipe)]
    if not colours:
        out = fn.coord_transform(levels, M=np.diag(scale).flatten().tolist(), T=light)
    else:
        out = (fused_colours if recipe.color == "fused" else exact_colours)(levels, light, *colours)
    return fn.cast(out, dtype=types.FLOAT16) if device == "gpu" else out


def fused_colours(x: Any, shift: Any, gain: Any, centre: Any) -> Any:
    mean = fn.reductions.mean(x, axes=[0, 1], keep_dims=True)
    return fn.coord_transform(x, M=gain, T=shift) + fn.coord_transform(mean, M=centre)


def exact_colours(x: Any, shift: Any, factor: Any, own: Any, mean: Any, hue: Any, keep: Any, gray: Any) -> Any:
    """The chain of ``exact`` on whole levels (S, S, 3)."""
    for k in range(2 * color_jitter.BEFORE):
        if k == color_jitter.BEFORE:
            x = rotated(x, hue)
        g = grayed(x)
        m = dmath.floor(fn.reductions.mean(g, axes=[0, 1], keep_dims=True) + 0.5)
        lift = fn.coord_transform(g, M=own[k]) + fn.coord_transform(m, M=mean[k])
        x = dmath.clamp(dmath.floor(fn.coord_transform(x, M=factor[k]) + lift + color_jitter.NUDGE), 0.0, 255.0)
    return fn.coord_transform(x, M=keep, T=shift) + fn.coord_transform(grayed(x), M=gray)


def grayed(x: Any) -> Any:
    """(S, S, 3) to (S, S, 1), whole levels."""
    return dmath.floor(fn.coord_transform(x, M=list(color_jitter.LUMA)) + 0.5)


def rotated(x: Any, sixths: Any) -> Any:
    """Hue turned in HSV by sixths of a turn (1,): of the six sectors around the gray axis, h says where a pixel is."""
    red, green, blue = (fn.slice(x, start=[c], end=[c + 1], axes=[2]) for c in range(3))
    high, low = dmath.max(dmath.max(red, green), blue), dmath.min(dmath.min(red, green), blue)
    chroma = high - low
    is_red = fn.cast(red == high, dtype=types.FLOAT)
    is_green = fn.cast(green == high, dtype=types.FLOAT) * (1.0 - is_red)
    is_blue = 1.0 - is_red - is_green
    sector = is_red * (green - blue) + is_green * (blue - red + 2.0 * chroma) + is_blue * (red - green + 4.0 * chroma)
    h = sector / dmath.max(chroma, 1.0)
    h = fn.coord_transform(h, M=[1.0], T=sixths)
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = h + offset
        k = k - 6.0 * dmath.floor(k / 6.0)
        channels.append(high - chroma * dmath.clamp(dmath.min(k, 4.0 - k), 0.0, 1.0))
    return dmath.floor(fn.cat(*channels, axis=2) + 0.5)


def resampled(image: Any, recipe: Recipe, drawn: dict[str, Any]) -> Any:
    """The box at S x S. It is cut out first: the filter of a crop must not see what lies beyond; a moved image is reflected.

    Resampled across and then down, in whole levels after either, as Pillow does. In one go, which costs a third less on a CPU,
    an image would lie up to .27 levels off on average, for want of the rounding in between.
    """
    window = drawn["window"]
    start, end = (fn.cast(window[k], dtype=types.INT32) for k in range(2))
    cut = fn.slice(image, start=start, end=end, axes=[0, 1], out_of_bounds_policy="reflect_101")
    levels = along(along(cut, window[2], window[3], resize_x=recipe.size), window[4], window[5], resize_y=recipe.size)
    if recipe.transpose:
        levels = fn.warp_affine(levels, matrix=drawn["turn"], interp_type=DALIInterpType.INTERP_NN)
    return levels


def along(image: Any, start: Any, end: Any, **size: Any) -> Any:
    return fn.resize(
        image,
        roi_start=start,
        roi_end=end,
        roi_relative=False,
        mode="stretch",  # an axis with no size keeps its own
        interp_type=DALIInterpType.INTERP_CUBIC,
        antialias=True,
        **size,
    )
