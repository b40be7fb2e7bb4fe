"""The DALI graph: encoded bytes and drawn parameters in, normalised views out.

An image is decoded once; each view is then one resampling and one affine map of its colours. Nothing in the graph is random and
nothing but ``device`` differs between a CPU and a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIInterpType

from pipeline.draws import Draws
from pipeline.recipes import Recipe


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

    Args:
        source: called once a batch; returns the encoded images (a list of uint8 arrays) and then, for each view, ``feed(draws)``.
        device: "cpu" or "gpu"; on the GPU, decoding is DALI's "mixed" operator.
    """
    pipe = Pipeline(batch_size=batch, num_threads=threads, device_id=device_id, prefetch_queue_depth=prefetch)
    width = len(parameters(recipe))
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
        pipe.set_outputs(*(view(image, recipe, device, *each) for each in grouped))
    pipe.build()
    return pipe


def parameters(recipe: Recipe) -> tuple[str, ...]:
    """Which inputs a view has, in order; without contrast jitter no view depends on its mean pixel."""
    return ("near", "far", "gain", "centre") if recipe.contrast and recipe.jitter_p else ("near", "far", "gain")


def feed(recipe: Recipe, draws: Draws) -> list[np.ndarray]:
    """What the graph takes of one view's draws: (N, …) each, in the order of ``parameters``."""
    arrays = {"near": draws.box[:, :2], "far": draws.box[:, 2:], "gain": draws.gain, "centre": draws.centre}
    return [np.ascontiguousarray(arrays[name]) for name in parameters(recipe)]


def view(image: Any, recipe: Recipe, device: str, near: Any, far: Any, gain: Any, centre: Any = None) -> Any:
    """One view: resample the box from ``near`` to ``far`` (mirrored where left > right), then the affine colour map."""
    pixels = (shifted if recipe.crop == "shift" else resampled)(image, recipe, near, far)
    offset = [-mean / std for mean, std in zip(recipe.mean, recipe.std, strict=True)]
    normalised = fn.coord_transform(pixels, M=gain, T=offset, dtype=types.FLOAT)
    if centre is not None:
        mean = fn.reductions.mean(pixels, axes=[0, 1], keep_dims=True, dtype=types.FLOAT)
        normalised = normalised + fn.coord_transform(mean, M=centre, dtype=types.FLOAT)
    return fn.cast(normalised, dtype=types.FLOAT16) if device == "gpu" else normalised


def resampled(image: Any, recipe: Recipe, near: Any, far: Any) -> Any:
    return fn.resize(
        image,
        roi_start=near,
        roi_end=far,
        roi_relative=False,
        size=[recipe.size, recipe.size],
        interp_type=DALIInterpType.INTERP_CUBIC,
        antialias=True,
    )


def shifted(image: Any, recipe: Recipe, near: Any, far: Any) -> Any:
    """The moved image, reflected at its border; resampling then mirrors it, and changes nothing where its side is S already."""
    low, high = dmath.min(near, far), dmath.max(near, far)
    window = fn.slice(
        image,
        start=fn.cast(low, dtype=types.INT32),
        end=fn.cast(high, dtype=types.INT32),
        axes=[0, 1],
        out_of_bounds_policy="reflect_101",
    )
    return resampled(window, recipe, near - low, far - low)
