"""Views by torch on the CPU: a box of a decoded image, resampled, coloured and normalised.

The same function of the same draws as the DALI graph, many times faster there: torch's antialiased bicubic on bytes is a port of
Pillow's at a fraction of its time, and colours are compiled loops over planes that stay in the cache. All is written into memory
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

from pipeline import exact, fused
from pipeline.buffers import Buffers
from pipeline.draws import Draws
from pipeline.jitter import Jitter
from pipeline.recipes import Recipe, normalisation


class Canvas:
    """Memory for the colours of one view: rgb and spare (3, P)."""

    def __init__(self, pixels: int) -> None:
        self.rgb, self.spare = torch.empty(2, 3, pixels)


class Painter:
    """Makes views of decoded images in ``threads`` threads."""

    def __init__(self, recipe: Recipe, threads: int) -> None:
        self.recipe, self.threads = recipe, threads
        self.canvases = [Canvas(recipe.size**2) for _ in range(threads)]
        self.buffers = Buffers()
        # One thread an image: several would only wait for each other in operations this small.
        self.pool = ThreadPoolExecutor(threads, "views", torch.set_num_threads, (1,))

    def views(self, images: Sequence[np.ndarray], draws: Sequence[Draws]) -> list[Tensor]:
        """For each of ``draws`` a batch (B, 3, S, S) float32, channels-last, of ``images`` (H, W, 3) uint8."""
        S = self.recipe.size
        batches = [self.buffers.take((len(images), S, S, 3)) for _ in draws]
        colours = [colouring(self.recipe, view.jitter) for view in draws]

        def paint(worker: int) -> None:
            canvas = self.canvases[worker]
            for i in range(worker, len(images), self.threads):
                for view, colour, batch in zip(draws, colours, batches, strict=True):
                    canvas.rgb.view(3, S, S).copy_(oriented(images[i], self.recipe, view, i))
                    colour(canvas, i, batch[i].view(-1, 3))

        list(self.pool.map(paint, range(self.threads)))
        return [batch.permute(0, 3, 1, 2) for batch in batches]


def oriented(image: np.ndarray, recipe: Recipe, view: Draws, i: int) -> Tensor:
    """The box of image i (H, W, 3) at S x S, mirrored and transposed as drawn: (3, S, S) uint8."""
    box = view.box[i]
    pixels = resampled(image, recipe, box)
    axes = [axis for axis, mirrored in ((1, box[0] > box[2]), (2, box[1] > box[3])) if mirrored]
    pixels = pixels.flip(axes) if axes else pixels
    return pixels.transpose(1, 2) if view.transposed[i] else pixels


def resampled(image: np.ndarray, recipe: Recipe, box: np.ndarray) -> Tensor:
    """The box of an image (H, W, 3) at S x S: (3, S, S) uint8."""
    (top, bottom), (left, right) = sorted(box[[0, 2]].astype(int)), sorted(box[[1, 3]].astype(int))
    window = reflected(image, top, left) if recipe.crop == "shift" else image[top:bottom, left:right]
    pixels = torch.from_numpy(window).permute(2, 0, 1)
    if pixels.shape[1:] != (recipe.size, recipe.size):
        pixels = F.interpolate(pixels[None], (recipe.size, recipe.size), mode="bicubic", antialias=True)[0]
    return pixels


def reflected(image: np.ndarray, top: int, left: int) -> np.ndarray:
    """The image moved so that (top, left) comes first; what lies outside is mirrored at the border, which is not repeated."""
    rows, columns = (there_and_back(first, count) for first, count in zip((top, left), image.shape, strict=False))
    return image[rows[:, None], columns]


def there_and_back(first: int, count: int) -> np.ndarray:
    """``count`` numbers from ``first`` on, as a walk in 0..count - 1 that turns at its ends."""
    last = count - 1
    return np.abs((np.arange(first, first + count) + last) % max(1, 2 * last) - last)


def colouring(recipe: Recipe, jitter: Jitter) -> Callable[[Canvas, int, Tensor], None]:
    """What colours and normalises the canvas of view i into (P, 3); the canvas is of no use afterwards."""
    shift, scale = (np.asarray(part, np.float32).reshape(3) for part in normalisation(recipe))
    if recipe.color == "fused":
        constant, factor = (torch.from_numpy(part).view(3, 1) for part in (shift, scale))
        gain, centre = (torch.from_numpy(part.astype(np.float32)) * factor for part in fused.compose(jitter))

        def compose(canvas: Canvas, i: int, out: Tensor) -> None:
            offset = centre[i] @ canvas.rgb.mean(1, keepdim=True) + constant
            out.copy_(torch.addmm(offset, gain[i], canvas.rgb, out=canvas.spare).T)

        return compose
    blend, hue, gray = exact.chain(jitter)
    blend, hue = blend.astype(np.float32), hue.astype(np.float32)

    def colour(canvas: Canvas, i: int, out: Tensor) -> None:
        exact.colour(canvas.rgb.numpy(), blend[i], hue[i], gray[i], shift, scale, out.numpy())

    return colour
