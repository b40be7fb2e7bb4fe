"""The multi-scale InfoNCE objective of AMDIM (arXiv 1906.00910, section 3; constants as in amdim-public's costs.py).

A source vector of one view predicts the target vectors of the other. Raw scores are x = <source, target> / sqrt(R), softly
clipped to s = c tanh(x / c). For source i and its own image's location l the loss is

    -s_iil + log(e^{s_iil} + sum over other images j and all their locations l' of e^{s_ijl'})  =  softplus(log N_i - s_iil)

so an image's other locations are neither positives nor negatives. 0.05 mean(x^2) over all pairs keeps raw scores near the clip.

Shape letters: M sources, B images, L locations, R embedding width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.encoder import Features
from model.partition import partition

CLIP = 20.0
REGULARISER = 0.05


class MultiscaleLoss(NamedTuple):
    """The three terms, each the mean of its two directions, and half the sum of the six regularisers."""

    loss_1t5: Tensor
    loss_1t7: Tensor
    loss_5t5: Tensor
    regulariser: Tensor

    @property
    def total(self) -> Tensor:
        return self.loss_1t5 + self.loss_1t7 + self.loss_5t5 + self.regulariser


def nce(sources: Tensor, targets: Tensor, clip: float = CLIP) -> tuple[Tensor, Tensor]:
    """One term: sources (B, R) predict targets (B, L, R), image for image.

    Returns:
        The mean loss over images and locations, and the regulariser 0.05 mean(x^2) over all B x B x L raw scores.

    Raises:
        ValueError: with fewer than two images there is no negative.
    """
    B, L, _ = targets.shape
    if B < 2:
        raise ValueError("the objective takes its negatives from other images: a batch holds at least 2")
    parts = partition(sources, torch.arange(B, device=sources.device), targets, clip)
    # log1p(N e^{-u}) is softplus(log N - u), and stays exact where the loss is tiny.
    loss = torch.log1p(parts.negatives[:, None] * torch.exp(-parts.positives)).mean()
    return loss, REGULARISER * parts.sum_of_squares / (B * B * L)


def locations_of(maps: Tensor) -> Tensor:
    """(B, R, h, w) -> (B, h w, R): one row a location."""
    return maps.flatten(2).transpose(1, 2)


def multiscale_nce(view1: Features, view2: Features, locations: Tensor, clip: float = CLIP) -> MultiscaleLoss:
    """The whole objective: r1 to r5, r1 to r7 and r5 to r5, from view 1 to view 2 and back.

    Args:
        view1, view2: features of the same B images in two views.
        locations: (2, B) int64 in [0, 25): the 5x5 location of each view that serves as source of the r5 to r5 term.
        clip: c of the soft clip.
    """
    there, back = direction(view1, view2, locations[0], clip), direction(view2, view1, locations[1], clip)
    return MultiscaleLoss(*((there + back) / 2))


def direction(source: Features, target: Features, location: Tensor, clip: float) -> Tensor:
    """What one view predicts of the other: (4,), the three losses and the sum of their regularisers."""
    r1 = source.r1.flatten(1)
    rows = torch.arange(len(r1), device=r1.device)
    r5 = locations_of(source.r5)[rows, location]
    to_5, to_7 = locations_of(target.r5), locations_of(target.r7)
    pairs = [nce(r1, to_5, clip), nce(r1, to_7, clip), nce(r5, to_5, clip)]
    losses, regularisers = zip(*pairs, strict=True)
    return torch.stack([*losses, torch.stack(regularisers).sum()])
