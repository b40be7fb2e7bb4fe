"""Features of whole splits: the encoder's r1 of the centred view, and the raw pixels that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.precision import Precision
from model.encoder import Encoder

PIXELS = 32  # side to which raw pixels are shrunk, at most


class Labelled(NamedTuple):
    """Features (n, D) float32 and labels (n,) int64 of a split's labelled images, on the CPU."""

    x: Tensor
    y: Tensor


@torch.no_grad()
def collect(batches: Iterable[tuple[Tensor, Tensor]], *functions: Callable[[Tensor], Tensor]) -> list[Labelled]:
    """One pass over (images, labels); a ``Labelled`` for each function of the images. Unlabelled images are left out."""
    parts: list[list[Tensor]] = [[] for _ in functions]
    labels = []
    for x, y in batches:
        labels.append(y)
        for part, function in zip(parts, functions, strict=True):
            part.append(function(x).float().cpu())
    y = torch.cat(labels)
    return [Labelled(torch.cat(part)[y >= 0], y[y >= 0]) for part in parts]


def represent(encoder: Encoder, precision: Precision, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The function from images to r1 (B, R), with the statistics of training."""
    encoder = encoder.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def function(x: Tensor) -> Tensor:
        with precision.autocast(device):
            return encoder.represent(x.to(device))

    return function


def pixels(x: Tensor) -> Tensor:
    """The image itself, at no more than 32 x 32: (B, 3 * side * side)."""
    return (F.interpolate(x.float(), size=(PIXELS, PIXELS), mode="area") if x.shape[-1] > PIXELS else x).flatten(1)


def standardise(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Zero mean and unit variance by the training features alone; features that never vary stay zero."""
    mean, std = train.mean(0), train.std(0)
    scale = torch.where(std > 1e-6, 1 / std.clamp(min=1e-6), 0)
    return [(x - mean) * scale for x in (train, *others)]
