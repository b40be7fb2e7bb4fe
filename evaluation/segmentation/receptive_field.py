"""Where the 7x7 locations lie in the image: the squares of pixels that they see, which overlap by half.

Shape letters: n images, K channels, S side of the view in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Field(NamedTuple):
    """What a location sees: a square of ``side`` pixels; neighbours are ``stride`` apart, the first begins ``pad`` outside."""

    side: int
    stride: int
    pad: int


FIELDS = {32: Field(8, 4, 0), 64: Field(16, 8, 0), 128: Field(35, 16, 2)}  # by the encoder's input size


def pool(x: Tensor, field: Field) -> Tensor:
    """The mean of what each location sees: (n, K, S, S) -> (n, K, 7, 7)."""
    return F.avg_pool2d(x, field.side, field.stride, field.pad, count_include_pad=False)


def upsample(maps: Tensor, field: Field, size: int, side: int) -> Tensor:
    """Values at the centres of the fields of a view of ``size`` pixels, (n, K, h, w), laid out over it as (n, K, side, side).

    Linear between the centres, constant beyond the outermost. Resizing the 7x7 map as if it were a picture would place its
    locations at the middles of seventh parts of the image, where they are not.
    """
    rows, columns = (weights(length, field, size, side).to(maps) for length in maps.shape[2:])
    return rows @ maps @ columns.T


def weights(length: int, field: Field, size: int, side: int) -> Tensor:
    """(side, length): how much each location in a row has to say about each pixel of the result."""
    pixel = (torch.arange(side) + 0.5) * size / side
    place = ((pixel - (field.side / 2 - field.pad)) / field.stride).clamp(0, length - 1)
    return (1 - (place[:, None] - torch.arange(length)).abs()).clamp(min=0)
