"""Mixture features: K predictions of a view, which share the other view's 7x7 locations out among themselves.

An extension that the paper describes and its authors did not publish. The features of r1 are m_k = r1 + MLP_k(r1). Component k
scores location i of its image's other view as any source of the objective does, against the locations of all other images:

    s(k, i) = u_ki - log(e^{u_ki} + N_k) = -log1p(N_k e^{-u_ki})

Wanted is the largest  mean over i of [sum_k q(k|i) s(k, i) + a H(q(.|i))],  H being the entropy. For given scores the best q
is the posterior softmax_k(s / a), and the bracket is then a log sum_k e^{s(k, i) / a}: that is what is computed. Its gradient is
the one with q held fixed, because q is where the bracket has its maximum. The constant a log K is taken off, so that K equal
components lose what one of them would: the loss is comparable for any K, and for K = 1 it is the plain term.

Shape letters: B images of this rank, K components, L locations, R embedding width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.collectives import add_up, gather
from model.encoder import Features
from model.nce import CLIP, locations_of, own_rows, score_sources

ENTROPY_WEIGHT = 1.0  # a: at 1 the mixture is one of likelihoods, and q is Bayes' posterior


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
    entropy_weight: float = ENTROPY_WEIGHT,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One term: the K sources of each image (B, K, R) predict its targets (B, L, R), against negatives of all ranks.

    Returns:
        The mean loss over this rank's images and locations, and the regulariser 0.05 mean(x^2) over raw scores of its targets.

    Raises:
        ValueError: with fewer than two images there is no negative.
    """
    B, K, _ = sources.shape
    found = score_sources(gather(sources), targets, clip, implementation)
    scores = log_scores(add_up(found.negatives)[own_rows(B)], found.positives)
    return mixture_loss(scores, entropy_weight), found.regulariser / K


def log_scores(negatives: Tensor, positives: Tensor) -> Tensor:
    """s of sources with N (...) and u (..., L): the log-probability of each target among itself and the negatives, (..., L)."""
    return -torch.log1p(negatives[..., None] * torch.exp(-positives))


def mixture_loss(scores: Tensor, entropy_weight: float) -> Tensor:
    """-a log mean_k e^{s / a}, the mean over images and locations of scores (B, K, L)."""
    best = entropy_weight * (torch.logsumexp(scores / entropy_weight, 1) - math.log(scores.shape[1]))
    return -best.mean()


def posterior(scores: Tensor, entropy_weight: float = ENTROPY_WEIGHT) -> Tensor:
    """q(k | i) of scores (B, K, L)."""
    return torch.softmax(scores / entropy_weight, 1)


def mixture_both_ways(
    mixture: Mixture, view1: Features, view2: Features, clip: float = CLIP, entropy_weight: float = ENTROPY_WEIGHT
) -> tuple[Tensor, Tensor]:
    """The mean loss of the two directions, and half the sum of their regularisers, as the other terms are weighed."""
    pairs = ((view1, view2), (view2, view1))
    terms = [
        mixture_nce(mixture(source.r1.flatten(1)), locations_of(target.r7), clip, entropy_weight) for source, target in pairs
    ]
    losses, regularisers = zip(*terms, strict=True)
    return torch.stack(losses).mean(), torch.stack(regularisers).mean()
