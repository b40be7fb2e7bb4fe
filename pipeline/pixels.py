"""Views by torch on the CPU: a box of a decoded image, resampled, coloured and normalised.

The same function of the same draws as the DALI graph, several times faster there: torch's antialiased bicubic on bytes is a port
of Pillow's at a fraction of its time, and colours are planes that stay in the cache while operation after operation passes over
them. Every pass writes into memory that is there already: asking the system for 200 kB costs ten times what a pass over it does.

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

GRAY = torch.tensor([exact.LUMA])
# Where red, green and blue begin on the hue circle, in sixths of a turn: (3, 1).
SECTORS = torch.tensor([[5.0], [3.0], [1.0]])
FOUR = torch.tensor(4.0)


class Canvas:
    """Memory for the colours of one view: rgb and spare (3, P), gray (1, P), six planes (P,)."""

    def __init__(self, pixels: int) -> None:
        self.rgb, self.spare = torch.empty(2, 3, pixels)
        self.gray, self.planes = torch.empty(1, pixels), torch.empty(6, pixels)


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
        batches = [self.buffers.take((len(images), S, S, 3)).permute(0, 3, 1, 2) for _ in draws]
        colours = [colouring(self.recipe, view.jitter) for view in draws]

        def paint(worker: int) -> None:
            canvas = self.canvases[worker]
            for i in range(worker, len(images), self.threads):
                for view, colour, batch in zip(draws, colours, batches, strict=True):
                    canvas.rgb.view(3, S, S).copy_(oriented(images[i], self.recipe, view, i))
                    batch[i] = colour(canvas, i).view(3, S, S)

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
    rows, columns = (there_and_back(first, count) for first, count in zip((top, left), image.shape, strict=False))
    return image[rows[:, None], columns]


def there_and_back(first: int, count: int) -> np.ndarray:
    """``count`` numbers from ``first`` on, as a walk in 0..count - 1 that turns at its ends."""
    last = count - 1
    return np.abs((np.arange(first, first + count) + last) % max(1, 2 * last) - last)


def colouring(recipe: Recipe, jitter: Jitter) -> Callable[[Canvas, int], Tensor]:
    """What colours and normalises a canvas as view i wants, in the canvas's own memory: (3, P)."""
    shift, scale = (torch.tensor(part).view(3, 1) for part in normalisation(recipe))
    if recipe.color == "fused":
        gain, centre = (torch.from_numpy(part.astype(np.float32)) * scale for part in fused.compose(jitter))

        def compose(canvas: Canvas, i: int) -> Tensor:
            offset = centre[i] @ canvas.rgb.mean(1, keepdim=True) + shift
            return torch.addmm(offset, gain[i], canvas.rgb, out=canvas.spare)

        return compose
    blend, hue, gray = (part.tolist() for part in exact.chain(jitter))

    def colour(canvas: Canvas, i: int) -> Tensor:
        jittered(canvas, blend[i], hue[i])
        return torch.addcmul(shift, grayed(canvas) if gray[i] else canvas.rgb, scale, out=canvas.spare)

    return colour


def jittered(canvas: Canvas, blend: list[list[float]], hue: float) -> None:
    """The chain of ``exact`` on a canvas of whole levels, but for its gray."""
    for step in blend[: exact.BEFORE]:
        blended(canvas, *step)
    if hue:
        rotated(canvas, hue)
    for step in blend[exact.BEFORE :]:
        blended(canvas, *step)


def blended(canvas: Canvas, f: float, own: float, mean: float) -> None:
    if (f, own, mean) == (1, 0, 0):
        return
    gray = grayed(canvas) if own or mean else canvas.gray
    x = canvas.rgb.mul_(f)
    if own:
        x.add_(gray, alpha=own)
    if mean:
        x.add_(gray.mean().add_(0.5).floor_(), alpha=mean)
    x.add_(exact.NUDGE).floor_().clamp_(0, 255)


def grayed(canvas: Canvas) -> Tensor:
    return torch.mm(GRAY, canvas.rgb, out=canvas.gray).add_(0.5).floor_()


def rotated(canvas: Canvas, turns: float) -> None:
    """Hue turned in HSV: of the six sectors around the gray axis, h says where a pixel is."""
    red, green, blue = canvas.rgb
    high, low, chroma, h, other, mask = canvas.planes
    torch.maximum(torch.maximum(red, green, out=high), blue, out=high)
    torch.minimum(torch.minimum(red, green, out=low), blue, out=low)
    torch.sub(high, low, out=chroma)
    torch.sub(red, green, out=h).add_(chroma, alpha=4)
    torch.sub(blue, red, out=other).add_(chroma, alpha=2)
    torch.lerp(h, other, torch.eq(green, high, out=mask), out=h)  # a mask of 0 and 1: choosing by bool is branches, and slow
    torch.sub(green, blue, out=other)
    torch.lerp(h, other, torch.eq(red, high, out=mask), out=h)
    h.div_(torch.clamp(chroma, min=1, out=low)).add_(6 * turns)
    k, rest = torch.add(h, SECTORS, out=canvas.spare), canvas.rgb
    k.sub_(torch.mul(k, 1 / 6, out=rest).floor_(), alpha=6)  # within a turn; a remainder's division is slow
    absent = torch.minimum(k, torch.sub(FOUR, k, out=rest), out=k).clamp_(0, 1)
    torch.addcmul(high, absent, chroma, value=-1, out=canvas.rgb).add_(0.5).floor_()
