"""The DALI graph: encoded bytes and drawn parameters in, normalised views out.

An image is decoded once; each view is then one resampling and the colours of its recipe. Nothing in the graph is random, and
nothing but ``device`` differs between a CPU and a GPU. What is drawn enters as arguments of operators, which stay on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIInterpType

from pipeline import exact, fused
from pipeline.draws import Draws
from pipeline.jitter import Jitter
from pipeline.recipes import Recipe, normalisation


def build(
    source: Callable[[], Sequence[Any]],
    recipe: Recipe,
    views: int,
    batch: int,
    device: str,
    device_id: int | None,
    threads: int,
    prefetch: int = 2,
) -> Pipeline:
    """A pipeline whose outputs are ``views`` batches of (S, S, 3) images: float16 on the GPU, float32 on the CPU.

    With no views, its output is the decoded images (H, W, 3) uint8.

    Args:
        source: called once a batch; returns the encoded images (a list of uint8 arrays) and then, for each view, ``feed(draws)``.
        device: "cpu" or "gpu"; on the GPU, decoding is DALI's "mixed" operator.
    """
    pipe = Pipeline(batch_size=batch, num_threads=threads, device_id=device_id, prefetch_queue_depth=prefetch)
    width = 2 + len(colour_inputs(recipe))
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
        pipe.set_outputs(*([view(image, recipe, device, *each) for each in grouped] or [image]))
    pipe.build()
    return pipe


def colour_inputs(recipe: Recipe) -> tuple[str, ...]:
    """Names of what the colour part of a view takes, in order; views that are never jittered take nothing."""
    if not (recipe.jitter_p or recipe.gray_p):
        return ()
    return ("gain", "centre") if recipe.color == "fused" else ("factor", "own", "mean", "hue", "keep", "gray")


def feed(recipe: Recipe, draws: Draws) -> list[np.ndarray]:
    """What the graph takes of one view's draws: (N, …) each, in the order of its inputs."""
    box = draws.box.astype(np.float32)
    tables = colour_tables(recipe, draws.jitter)
    return [np.ascontiguousarray(part, np.float32) for part in (box[:, :2], box[:, 2:], *map(tables.get, colour_inputs(recipe)))]


def colour_tables(recipe: Recipe, jitter: Jitter) -> dict[str, np.ndarray]:
    """What colours levels 0..255 and scales them, as the matrices that ``coord_transform`` takes."""
    scale = np.array(normalisation(recipe)[1])[:, None]
    if recipe.color == "fused":
        gain, centre = fused.compose(jitter)
        return {"gain": gain * scale, "centre": centre * scale}
    chain = exact.chain(jitter)
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


def view(image: Any, recipe: Recipe, device: str, near: Any, far: Any, *colours: Any) -> Any:
    """One view: resample the box from ``near`` to ``far`` (mirrored where left > right), then colours and normalisation."""
    levels = fn.cast(resampled(image, recipe, near, far), dtype=types.FLOAT)
    shift, scale = normalisation(recipe)
    if not colours:
        out = fn.coord_transform(levels, M=np.diag(scale).flatten().tolist(), T=list(shift))
    else:
        out = (fused_colours if recipe.color == "fused" else exact_colours)(levels, list(shift), *colours)
    return fn.cast(out, dtype=types.FLOAT16) if device == "gpu" else out


def fused_colours(x: Any, shift: list[float], gain: Any, centre: Any) -> Any:
    mean = fn.reductions.mean(x, axes=[0, 1], keep_dims=True)
    return fn.coord_transform(x, M=gain, T=shift) + fn.coord_transform(mean, M=centre)


def exact_colours(x: Any, shift: list[float], factor: Any, own: Any, mean: Any, hue: Any, keep: Any, gray: Any) -> Any:
    """The chain of ``exact`` on whole levels (S, S, 3)."""
    for k in range(2 * exact.BEFORE):
        if k == exact.BEFORE:
            x = rotated(x, hue)
        g = grayed(x)
        m = dmath.floor(fn.reductions.mean(g, axes=[0, 1], keep_dims=True) + 0.5)
        lift = fn.coord_transform(g, M=own[k]) + fn.coord_transform(m, M=mean[k])
        x = dmath.clamp(dmath.floor(fn.coord_transform(x, M=factor[k]) + lift + exact.NUDGE), 0.0, 255.0)
    return fn.coord_transform(x, M=keep, T=shift) + fn.coord_transform(grayed(x), M=gray)


def grayed(x: Any) -> Any:
    """(S, S, 3) to (S, S, 1), whole levels."""
    return dmath.floor(fn.coord_transform(x, M=list(exact.LUMA)) + 0.5)


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


def resampled(image: Any, recipe: Recipe, near: Any, far: Any) -> Any:
    """The box at S x S. It is cut out first: the filter of a crop must not see what lies beyond; a moved image is reflected."""
    low, high = dmath.min(near, far), dmath.max(near, far)
    window = fn.slice(
        image,
        start=fn.cast(low, dtype=types.INT32),
        end=fn.cast(high, dtype=types.INT32),
        axes=[0, 1],
        out_of_bounds_policy="reflect_101",
    )
    return fn.resize(
        window,
        roi_start=near - low,
        roi_end=far - low,
        roi_relative=False,
        size=[recipe.size, recipe.size],
        interp_type=DALIInterpType.INTERP_CUBIC,
        antialias=True,
    )
