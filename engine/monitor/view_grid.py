"""Pairs of views of a few images as one picture for TensorBoard: what AMDIM sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EVERY = 1000  # steps
SHOWN, GAP = 8, 2  # images; pixels between pictures


def due(step: int, first: bool) -> bool:
    """Whether a log step shows pairs: the ``first`` of a process, and every EVERY steps."""
    return first or step % EVERY == 0


@torch.no_grad()
def picture(x1: Tensor, x2: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Columns of pairs, view 1 above view 2, on white: (3, height, width) float32 in [0, 1] on the host.

    Args:
        x1, x2: normalised views (B, 3, S, S), of which the first SHOWN are taken; on a GPU the host waits for them.
        mean, std: of the recipe, by channel.
    """
    rows = [x[:SHOWN].float().cpu() * channels(std) + channels(mean) for x in (x1, x2)]
    side, count = x1.shape[-1], len(rows[0])
    sheet = torch.ones(3, 2 * side + GAP, count * (side + GAP) - GAP)
    for row, views in enumerate(rows):
        for column, view in enumerate(views.clamp(0, 1)):
            top, left = row * (side + GAP), column * (side + GAP)
            sheet[:, top : top + side, left : left + side] = view
    return sheet


def channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)
