"""Mixture features: K predictions of a view, which share the other view's 7x7 locations out among themselves.

An extension that the paper describes and its authors did not publish. The features of r1 are m_k = r1 + MLP_k(r1). Component k
scores location i of its image's other view as any source of the objective does, against the locations of all other images:

    s(k, i) = u_ki - log(e^{u_ki} + N_k) = -log1p(N_k e^{-u_ki})

Wanted is the largest  mean over i of [sum_k q(k|i) s(k, i) + alpha H(q(.|i))],  H being the entropy. For given scores the best
q is the posterior softmax_k(s / alpha), and the bracket is then alpha log sum_k e^{s(k, i) / alpha}: what is computed here. Its
gradient is the one with q held fixed, because q is where the bracket has its maximum. The constant alpha log K is taken off, so
that K equal components lose what one of them would: the loss is comparable for any K, and for K = 1 it is the plain term.

Shape letters: B images of this rank, K components, L locations, R embedding width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amdim.model.collectives import AsyncAllGather, all_reduce_sum, gather
from amdim.model.encoder import Features
from amdim.model.multiscale_nce import CLIP, locations_of, own_rows, score_sources

ALPHA = 0.3  # weight of the entropy: small makes components share locations out, large has each do for all; docs/mixtures.md


class Mixture(nn.Module):
    """K features of a representation: m_k = r1 + MLP_k(r1), one hidden ReLU layer of R units giving all K.

    The last layer starts random and not, as in the encoder's units, at zero: equal components would get equal gradients for ever.
    """

    def __init__(self, embedding: int, components: int) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"mixture of {components} components: at least 1")
        self.components = components
        self.hidden = nn.Linear(embedding, embedding)
        self.out = nn.Linear(embedding, components * embedding)

    def forward(self, r1: Tensor) -> Tensor:
        """(B, R) -> (B, K, R)."""
        moved = self.out(F.relu(self.hidden(r1)))
        return r1[:, None] + moved.unflatten(1, (self.components, -1))


def mixture_nce(
    sources: Tensor,
    targets: Tensor,
    clip: float = CLIP,
    alpha: float = ALPHA,
) -> tuple[Tensor, Tensor]:
    """One term: the K sources of each image (B, K, R) predict its targets (B, L, R), against negatives of all ranks.

    Returns:
        The mean loss over this rank's images and locations, and the regulariser 0.05 mean(x^2) over raw scores of its targets.

    Raises:
        ValueError: with fewer than two images there is no negative.
    """
    return score_mixtures([gather(sources)], [targets], clip, alpha)


def mixture_both_ways(
    mixture: Mixture,
    view1: Features,
    view2: Features,
    clip: float = CLIP,
    alpha: float = ALPHA,
) -> tuple[Tensor, Tensor]:
    """The mean loss of the two directions, and half the sum of their regularisers, as the other terms are weighed."""
    on_their_way = [AsyncAllGather(mixture(view.r1.flatten(1))) for view in (view1, view2)]
    targets = [locations_of(view.r7) for view in (view2, view1)]
    return score_mixtures([each.wait() for each in on_their_way], targets, clip, alpha)


def score_mixtures(sources: list[Tensor], targets: list[Tensor], clip: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Loss and regulariser, the means over directions from sources of all ranks (N, K, R) to targets of this one (B, L, R)."""
    found = [score_sources(*pair, clip) for pair in zip(sources, targets, strict=True)]
    sums = all_reduce_sum(torch.stack([each.negatives for each in found]))
    own = sums[:, own_rows(len(targets[0]))]
    losses = [mixture_loss(log_scores(N, each.positives), alpha) for N, each in zip(own, found, strict=True)]
    regularisers = [each.regulariser / each.negatives.shape[1] for each in found]
    return torch.stack(losses).mean(), torch.stack(regularisers).mean()


def log_scores(negatives: Tensor, positives: Tensor) -> Tensor:
    """s of sources with N (...) and u (..., L): the log-probability of each target among itself and the negatives, (..., L)."""
    return -torch.log1p(negatives[..., None] * torch.exp(-positives))


def mixture_loss(scores: Tensor, alpha: float) -> Tensor:
    """-alpha log mean_k e^{s / alpha}, the mean over images and locations of scores (B, K, L)."""
    best = alpha * (torch.logsumexp(scores / alpha, 1) - math.log(scores.shape[1]))
    return -best.mean()


def posterior(scores: Tensor, alpha: float = ALPHA) -> Tensor:
    """q(k | i) of scores (B, K, L)."""
    return torch.softmax(scores / alpha, 1)
