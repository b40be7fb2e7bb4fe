"""Views by torch on the CPU: a box of a decoded image, resampled, coloured and normalised.

The same function of the same draws as the DALI graph, many times faster there: torch's antialiased bicubic on bytes is a port of
Pillow's at a fraction of its time, and colours are compiled loops over a view that stays in the cache. All is written into memory
that is there already: asking the system for 200 kB costs ten times what a pass over it does.

Shape letters: B images of a batch, S image side, P = S S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from amdim.pipeline.augment import autoaugment, autoaugment_cpu, color_jitter, color_jitter_affine
from amdim.pipeline.augment.jit import jit
from amdim.pipeline.augment.recipes import Recipe, normalisation
from amdim.pipeline.augment.view_params import ViewParams
from amdim.pipeline.buffer_pool import BufferPool


class CpuAugmenter:
    """Makes views of decoded images in ``threads`` threads."""

    def __init__(self, recipe: Recipe, threads: int) -> None:
        self.recipe, self.threads = recipe, threads
        # Planes to work in: levels, and levels to spare; and what is made of them.
        self.levels = np.empty((threads, 2, 3, recipe.size**2), np.uint8)
        self.canvases = np.empty((threads, 3, recipe.size**2), np.float32)
        self.buffers = BufferPool()
        # One thread an image: several would only wait for each other in operations this small.
        self.pool = ThreadPoolExecutor(threads, "views", torch.set_num_threads, (1,))

    def views(self, images: Sequence[np.ndarray], draws: Sequence[ViewParams]) -> list[Tensor]:
        """For each of ``draws`` a batch (B, 3, S, S) float32, channels-last, of ``images`` (H, W, 3) uint8."""
        S = self.recipe.size
        batches = [self.buffers.take((len(images), S, S, 3)) for _ in draws]
        operations = [operating(self.recipe, view) for view in draws]
        colours = [colouring(self.recipe, view) for view in draws]

        def paint(worker: int) -> None:
            (levels, spare), canvas = self.levels[worker], self.canvases[worker]
            for i in range(worker, len(images), self.threads):
                for view, operate, colour, batch in zip(draws, operations, colours, batches, strict=True):
                    oriented(images[i], self.recipe, view, i, levels)
                    if operate:
                        operate(i, levels, spare)
                    colour(i, levels, canvas)
                    interleave(canvas, batch[i].view(-1, 3).numpy())

        list(self.pool.map(paint, range(self.threads)))
        return [batch.permute(0, 3, 1, 2) for batch in batches]


def oriented(image: np.ndarray, recipe: Recipe, view: ViewParams, i: int, levels: np.ndarray) -> None:
    """The box of image i (H, W, 3) at S x S, mirrored and transposed as drawn, into planes (3, P) uint8."""
    box = view.box[i]
    unpack(resampled(image, recipe, box), box[0] > box[2], box[1] > box[3], view.transposed[i], levels)


def resampled(image: np.ndarray, recipe: Recipe, box: np.ndarray) -> np.ndarray:
    """The box of an image (H, W, 3) at S x S: (S, S, 3) uint8."""
    (top, bottom), (left, right) = sorted(box[[0, 2]].astype(int)), sorted(box[[1, 3]].astype(int))
    window = reflected(image, top, left) if recipe.crop == "shift" else image[top:bottom, left:right]
    # Channels-last by its strides, those of the batch of one too: torch then need not make planes of it and pixels of them.
    pixels = torch.from_numpy(window)[None].permute(0, 3, 1, 2)
    if pixels.shape[2:] != (recipe.size, recipe.size):
        pixels = F.interpolate(pixels, (recipe.size, recipe.size), mode="bicubic", antialias=True)
    return pixels[0].permute(1, 2, 0).contiguous().numpy()


def reflected(image: np.ndarray, top: int, left: int) -> np.ndarray:
    """The image moved so that (top, left) comes first; what lies outside is mirrored at the border, which is not repeated."""
    rows, columns = (there_and_back(first, count) for first, count in zip((top, left), image.shape, strict=False))
    return image[rows[:, None], columns]


def there_and_back(first: int, count: int) -> np.ndarray:
    """``count`` numbers from ``first`` on, as a walk in 0..count - 1 that turns at its ends."""
    last = count - 1
    return np.abs((np.arange(first, first + count) + last) % max(1, 2 * last) - last)


def operating(recipe: Recipe, view: ViewParams) -> Callable[[int, np.ndarray, np.ndarray], None] | None:
    """What does the operations of view i to its levels (3, P) uint8 in place, with as much to spare, where the recipe has any."""
    if recipe.policy == "none":
        return None
    parameters = autoaugment_cpu.prepare(autoaugment.as_steps(view.policy, recipe.size))

    def operate(i: int, levels: np.ndarray, spare: np.ndarray) -> None:
        for k in np.flatnonzero(view.policy.operation[i]):
            autoaugment_cpu.apply(levels, spare, *(part[i, k] for part in parameters))

    return operate


def colouring(recipe: Recipe, view: ViewParams) -> Callable[[int, np.ndarray, np.ndarray], None]:
    """What colours and normalises the levels (3, P) uint8 of view i into (3, P) float32."""
    shift, scale = (np.asarray(part, np.float32) for part in normalisation(recipe))
    shift = (shift + view.light / recipe.std).astype(np.float32)
    if recipe.color == "fused":
        gain, centre = (part.astype(np.float32) * scale[:, None] for part in color_jitter_affine.compose(view.jitter))
        return lambda i, levels, out: color_jitter_affine.colour(levels, gain[i], centre[i], shift[i], out)
    chain = color_jitter.chain(view.jitter)
    blend, hue = chain.blend.astype(np.float32), chain.hue.astype(np.float32)
    return lambda i, levels, out: color_jitter.colour(levels, blend[i], hue[i], chain.gray[i], shift[i], scale, out)


@jit
def unpack(pixels: np.ndarray, down: bool, across: bool, transposed: bool, planes: np.ndarray) -> None:
    """(S, S, 3) to (3, P): turned upside down, mirrored, and then rows and columns swapped, each where asked."""
    S = pixels.shape[0]
    for y in range(S):
        row = S - 1 - y if down else y
        for x in range(S):
            column = S - 1 - x if across else x
            p = x * S + y if transposed else y * S + x
            planes[0, p], planes[1, p], planes[2, p] = pixels[row, column, 0], pixels[row, column, 1], pixels[row, column, 2]


@jit
def interleave(planes: np.ndarray, out: np.ndarray) -> None:
    """(3, P) to (P, 3), which is channels-last."""
    for p in range(out.shape[0]):
        out[p, 0], out[p, 1], out[p, 2] = planes[0, p], planes[1, p], planes[2, p]
