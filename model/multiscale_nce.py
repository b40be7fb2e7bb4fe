"""The multi-scale InfoNCE objective of AMDIM (arXiv 1906.00910, section 3; constants as in amdim-public's costs.py).

A source vector of one view predicts the target vectors of the other. Raw scores are x = <source, target> / sqrt(R), softly
clipped to s = c tanh(x / c). For source i and its own image's location l the loss is

    -s_iil + log(e^{s_iil} + sum over other images j and all their locations l' of e^{s_ijl'})  =  softplus(log N_i - s_iil)

so an image's other locations are neither positives nor negatives. 0.05 mean(x^2) over all pairs keeps raw scores near the clip.

Over several ranks the negatives are those of the global batch. An image has 74 targets a view and only two sources, so sources
travel: every rank scores those of all ranks against its own targets, and the partial sums N are added up.

Shape letters: M sources, B images of a rank, N of all ranks, L locations, R embedding width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from amdim.model.collectives import AsyncAllGather, all_reduce_sum, gather, rank
from amdim.model.encoder import Features
from amdim.model.streaming_nce import nce_sums

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


def multiscale_nce(
    view1: Features, view2: Features, locations: Tensor, clip: float = CLIP, implementation: str = "auto"
) -> MultiscaleLoss:
    """The whole objective: r1 to r5, r1 to r7 and r5 to r5, from view 1 to view 2 and back.

    Args:
        view1, view2: features of the same B images in two views.
        locations: (2, B) int64 in [0, 25): the 5x5 location of each view that serves as source of the r5 to r5 term.
        clip: c of the soft clip.
        implementation: of ``partition``.

    Returns:
        Means over the images of this rank, against negatives of all ranks; the mean over ranks is the loss of the whole batch.

    Raises:
        ValueError: with fewer than two images there is no negative.
    """
    there = AsyncAllGather(sources_of(view1, locations[0]))
    back = AsyncAllGather(sources_of(view2, locations[1]))
    return score(there, back, view1, view2, clip, implementation)


def sources_of(view: Features, location: Tensor) -> Tensor:
    """The vectors of a view that predict the other one: r1, and r5 at one ``location`` (B,) an image: (B, 2, R)."""
    r1 = view.r1.flatten(1)
    rows = torch.arange(len(r1), device=r1.device)
    return torch.stack([r1, locations_of(view.r5)[rows, location]], 1)


def locations_of(maps: Tensor) -> Tensor:
    """(B, R, h, w) -> (B, h w, R): one row a location; no copy of a channels-last map."""
    return maps.flatten(2).transpose(1, 2)


def score(
    there: AsyncAllGather,
    back: AsyncAllGather,
    view1: Features,
    view2: Features,
    clip: float = CLIP,
    implementation: str = "auto",
) -> MultiscaleLoss:
    """``multiscale_nce`` from sources that are on their way already: those of view 1 ``there``, those of view 2 ``back``."""
    scores = [*direction(there.wait(), view2, clip, implementation), *direction(back.wait(), view1, clip, implementation)]
    to_5, to_7, back_5, back_7 = losses_of(scores)
    (loss_1t5, loss_5t5), (loss_1t7,) = (to_5 + back_5) / 2, (to_7 + back_7) / 2
    return MultiscaleLoss(loss_1t5, loss_1t7, loss_5t5, torch.stack([each.regulariser for each in scores]).sum() / 2)


def nce(sources: Tensor, targets: Tensor, clip: float = CLIP, implementation: str = "auto") -> tuple[Tensor, Tensor]:
    """One term: sources (B, R) predict targets (B, L, R), image for image.

    Returns:
        The mean loss over images and locations, and the regulariser 0.05 mean(x^2) over all raw scores.

    Raises:
        ValueError: with fewer than two images there is no negative.
    """
    scores = score_sources(gather(sources)[:, None], targets, clip, implementation)
    return losses_of([scores])[0][0], scores.regulariser


class Scores(NamedTuple):
    """P sources of each image on this rank's targets: this rank's part of N (N, P), positives s - c (B, P, L), regulariser ()."""

    negatives: Tensor
    positives: Tensor
    regulariser: Tensor


def direction(sources: Tensor, target: Features, clip: float, implementation: str) -> tuple[Scores, Scores]:
    """All images' sources (N, 2, R) on the 5x5 and on the 7x7 targets; r1 and r5 share one product for the 5x5 ones."""
    to_5 = score_sources(sources, locations_of(target.r5), clip, implementation)
    return to_5, score_sources(sources[:, :1], locations_of(target.r7), clip, implementation)


def score_sources(sources: Tensor, targets: Tensor, clip: float, implementation: str = "auto") -> Scores:
    """P sources of each image of all ranks (N, P, R) on the targets of this rank's images (B, L, R)."""
    (N, P, _), (B, L, _) = sources.shape, targets.shape
    if N < 2:
        raise ValueError("the objective takes its negatives from other images: a batch holds at least 2")
    owner = (torch.arange(N, device=sources.device) - rank() * B).repeat_interleave(P)
    parts = nce_sums(sources.flatten(0, 1), owner, targets, clip, implementation)
    # Averaged over ranks, this is the mean over all N x N x L pairs, for each of the P.
    regulariser = REGULARISER * parts.sum_of_squares / (N * B * L)
    return Scores(parts.negatives.view(N, P), parts.positives.view(N, P, L)[own_rows(B)], regulariser)


def losses_of(scores: list[Scores]) -> list[Tensor]:
    """Mean loss over this rank's images and locations, for each of an image's P sources: (P,) of every set of scores."""
    sums = all_reduce_sum(torch.cat([each.negatives.flatten() for each in scores])).split(
        [each.negatives.numel() for each in scores]
    )
    return [mean_loss(N.view_as(each.negatives), each.positives) for N, each in zip(sums, scores, strict=True)]


def mean_loss(negatives: Tensor, positives: Tensor) -> Tensor:
    own = negatives[own_rows(len(positives)), :, None]
    # log1p(N e^{-u}) is softplus(log N - u), and stays exact where the loss is tiny.
    return torch.log1p(own * torch.exp(-positives)).mean((0, 2))


def own_rows(B: int) -> slice:
    """This rank's B images among all."""
    return slice(rank() * B, (rank() + 1) * B)
