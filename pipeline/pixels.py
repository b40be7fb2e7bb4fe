"""Views by torch on the CPU: a box of a decoded image, resampled, coloured and normalised.

The same function of the same draws as the DALI graph, several times faster there: torch's antialiased bicubic on bytes is a port
of Pillow's at a fraction of its time, and colours are planes that stay in the cache while operation after operation passes over
them.

Shape letters: B images of a batch, S image side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline import exact, fused
from pipeline.draws import Draws
from pipeline.jitter import Jitter
from pipeline.recipes import Recipe, normalisation

GRAY = torch.tensor([exact.LUMA])


class Painter:
    """Makes views of decoded images in ``threads`` threads."""

    def __init__(self, recipe: Recipe, threads: int) -> None:
        self.recipe, self.threads = recipe, threads
        # One thread an image: several would only wait for each other in operations this small.
        self.pool = ThreadPoolExecutor(threads, "views", torch.set_num_threads, (1,))

    def views(self, images: Sequence[np.ndarray], draws: Sequence[Draws]) -> list[Tensor]:
        """For each of ``draws`` a batch (B, 3, S, S) float32, channels-last, of ``images`` (H, W, 3) uint8."""
        shape = (len(images), 3, self.recipe.size, self.recipe.size)
        batches = [torch.empty(shape, memory_format=torch.channels_last) for _ in draws]
        colours = [colour_maps(self.recipe, view.jitter) for view in draws]

        def paint(first: int) -> None:
            for i in range(first, len(images), self.threads):
                for view, colour, batch in zip(draws, colours, batches, strict=True):
                    levels = oriented(images[i], self.recipe, view, i).float()
                    batch[i] = colour(levels.flatten(1), i).view(shape[1:])

        list(self.pool.map(paint, range(self.threads)))
        return batches


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
    height, width, _ = image.shape
    across = [(max(0, -top), max(0, top)), (max(0, -left), max(0, left)), (0, 0)]
    return np.pad(image, across, "reflect")[max(0, top) :][:height, max(0, left) :][:, :width]


def colour_maps(recipe: Recipe, jitter: Jitter) -> Callable[[Tensor, int], Tensor]:
    """What makes levels (3, pixels) of view i coloured and normalised."""
    shift, scale = (torch.tensor(part).view(3, 1) for part in normalisation(recipe))
    if recipe.color == "fused":
        gain, centre = (torch.from_numpy(part.astype(np.float32)) * scale for part in fused.compose(jitter))
        return lambda x, i: torch.addmm(centre[i] @ x.mean(1, keepdim=True) + shift, gain[i], x)
    chain = exact.chain(jitter)
    return lambda x, i: torch.addcmul(shift, jittered(x, *(part[i] for part in chain)), scale)


def jittered(x: Tensor, blend: np.ndarray, hue: float, gray: bool) -> Tensor:
    """The chain of ``exact`` on whole levels (3, pixels)."""
    for step in blend[: exact.BEFORE]:
        x = blended(x, *step)
    x = rotated(x, hue) if hue else x
    for step in blend[exact.BEFORE :]:
        x = blended(x, *step)
    return grayed(x).expand_as(x) if gray else x


def blended(x: Tensor, f: float, own: float, mean: float) -> Tensor:
    if (f, own, mean) == (1, 0, 0):
        return x
    y = x * f
    if own:
        y.add_(grayed(x), alpha=own)
    if mean:
        y.add_(grayed(x).mean().add_(0.5).floor_(), alpha=mean)
    return y.add_(exact.NUDGE).floor_().clamp_(0, 255)


def grayed(x: Tensor) -> Tensor:
    return (GRAY @ x).add_(0.5).floor_()


def rotated(x: Tensor, turns: float) -> Tensor:
    """Hue turned in HSV: of the six sectors around the gray axis, h says where a pixel is."""
    red, green, blue = x
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    h = torch.where(green == high, 2 * chroma + blue - red, 4 * chroma + red - green)
    h = torch.where(red == high, green - blue, h).div_(chroma.clamp(min=1)).add_(6 * turns)
    y = torch.empty_like(x)
    for channel, offset in zip(y, (5, 3, 1), strict=True):
        k = torch.remainder(h + offset, 6)
        torch.minimum(k, 4 - k, out=channel).clamp_(0, 1)
    return torch.addcmul(high, y, chroma, value=-1, out=y).add_(0.5).floor_()
