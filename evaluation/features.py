"""Features of a split's images, and how probes read them: in pieces, from memory or from a file that is larger than it.

Shape letters: V views of an image, the centred one first; n images of a split; D features; k images that are meant; m samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from amdim.engine.precision import Precision
from amdim.model.encoder import Encoder

PIXELS = 32  # side to which raw pixels are shrunk, at most
PIECE = 4096  # samples that are in float32 at a time: 50 MB at 3,072 features
RUN = 64  # neighbours in a file that are read together where samples are drawn: 300 KB at 2,560 features
KEPT = 2**30  # bytes of float32 that a probe may hold to go over its features often; more is read anew each time

Function = Callable[[Tensor], Tensor]


class LabeledFeatures(NamedTuple):
    """Some images of a split with their labels.

    Args:
        x: (V, n, D) features of the whole split, of any floating type.
        y: (n,) int64; -1 unlabelled.
        rows: (k,) int64, which images are meant; they have labels.
    """

    x: Tensor
    y: Tensor
    rows: Tensor

    @property
    def labels(self) -> Tensor:
        """(k,)."""
        return self.y[self.rows]

    @property
    def samples(self) -> int:
        """V k."""
        return len(self.x) * len(self.rows)

    @property
    def places(self) -> Tensor:
        """(V k,): where all views of these images are, view by view, as ``take`` understands it."""
        return torch.cat([view * len(self.y) + self.rows for view in range(len(self.x))])

    def only(self, chosen: Tensor) -> LabeledFeatures:
        """Some of these images: positions in ``rows``, or a mask of it."""
        return self._replace(rows=self.rows[chosen])

    def centred(self) -> LabeledFeatures:
        """The same images, by their centred view alone."""
        return self._replace(x=self.x[:1])

    def take(self, places: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Features (m, D) float32 and labels (m,) of some of ``places``."""
        return self.x.flatten(0, 1)[places].to(device).float(), self.y[places % len(self.y)].to(device)

    def pieces(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All views of these images, view by view."""
        return (self.take(places, device) for places in self.places.split(PIECE))


def labelled(x: Tensor, y: Tensor) -> LabeledFeatures:
    """The images with labels among (V, n, D) or (n, D)."""
    return LabeledFeatures(x if x.dim() == 3 else x[None], y, (y >= 0).nonzero().flatten())


@dataclass(frozen=True)
class Scaler:
    """Zero mean and unit variance by the training features alone; features that never vary stay zero. (D,) each."""

    mean: Tensor
    scale: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale


def fit_scaler(train: LabeledFeatures, device: torch.device) -> Scaler:
    """Mean and variance in one pass, about the first piece's mean: a variance that is small beside its mean keeps its digits."""
    first, total = None, torch.zeros(2, train.x.shape[2], dtype=torch.float64, device=device)
    for x, _ in train.pieces(device):
        first = x.mean(0) if first is None else first
        moved = (x - first).double()
        total += torch.stack([moved.sum(0), moved.square().sum(0)])
    assert first is not None
    mean, square = total / train.samples
    std = (square - mean.square()).clamp(min=0).sqrt()
    mean, size = first + mean, (first + mean).abs()
    varies = std > 1e-6 * size.clamp(min=1e-6)
    return Scaler(mean.float(), torch.where(varies, 1 / std.clamp(min=1e-30), 0).float())


class Scaled:
    """The pieces of ``train``, scaled, as often as they are asked for: held where they are small."""

    def __init__(self, train: LabeledFeatures, scale: Function, device: torch.device) -> None:
        self.train, self.scale, self.device = train, scale, device
        small = 4 * train.samples * train.x.shape[2] <= KEPT
        self.held = list(self.read()) if small else None

    def read(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((self.scale(x), y) for x, y in self.train.pieces(self.device))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.read() if self.held is None else iter(self.held)


@torch.no_grad()
def collect(batches: Iterable[tuple[Tensor, Tensor]], function: Function) -> LabeledFeatures:
    """One pass over (images, labels), into memory: for benchmarks and tests, whose splits are small."""
    x, y = zip(*((function(x).float().cpu(), y) for x, y in batches), strict=True)
    return labelled(torch.cat(x), torch.cat(y))


def ready(encoder: Encoder, device: torch.device) -> Encoder:
    """To be looked through: on the device, channels-last, with the statistics of training."""
    return encoder.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def represent(encoder: Encoder, precision: Precision, device: torch.device) -> Function:
    """The function from images to r1 (B, R), with the statistics of training."""
    encoder = ready(encoder, device)

    @torch.no_grad()
    def function(x: Tensor) -> Tensor:
        with precision.autocast(device):
            return encoder.represent(x.to(device))

    return function


def pixels(x: Tensor) -> Tensor:
    """The image itself, at no more than 32 x 32: (B, 3 * side * side)."""
    return (F.interpolate(x.float(), size=(PIXELS, PIXELS), mode="area") if x.shape[-1] > PIXELS else x).flatten(1)
