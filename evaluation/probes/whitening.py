"""Principal axes of features, which are often nearly dependent: what tells classes apart may vary far less than the rest.

Shape letters: m samples of a piece, n samples surveyed, D features, A axes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from amdim.evaluation.features import PIECE, RUN, LabeledFeatures, Scaler, fit_scaler

SURVEYED = 16_384  # samples that axes are taken of: 200 MB at 3,072 features


class Axes(NamedTuple):
    """Of standardised features: variance (A,) along each principal axis, and these as columns of (D, A).

    A is D; or fewer with fewer images than that, which lie in the axes' span.
    """

    variance: Tensor
    directions: Tensor

    def above(self, variance: float) -> Axes:
        """Those along which features vary more than that, and the first of all in any case."""
        there = self.variance >= self.variance.clamp(max=variance).amax() if len(self.variance) else self.variance > 0
        return Axes(self.variance[there], self.directions[:, there])

    def whiten(self, x: Tensor, floor: float) -> Tensor:
        """Features (m, A) along the axes, with variances near 1 where they were above ``floor``, and small below it."""
        return (x @ self.directions) * (self.variance + floor).rsqrt()


def survey(train: LabeledFeatures, device: torch.device) -> tuple[Scaler, Axes]:
    """How features are standardised, and their axes."""
    scale = fit_scaler(train, device)
    pieces = surveyed(train.places).split(PIECE)
    return scale, principal_axes(torch.cat([scale(train.take(places, device)[0]) for places in pieces]))


def surveyed(places: Tensor) -> Tensor:
    """All, or short runs at equal distances: a set may be sorted by class."""
    runs = places.split(RUN)
    chosen = torch.linspace(0, len(runs) - 1, min(len(runs), SURVEYED // RUN)).round().long().tolist()
    return torch.cat([runs[number] for number in chosen])


def principal_axes(x: Tensor) -> Axes:
    """Of rows (n, D); by their products with one another where these are fewer than those of features."""
    n, D = x.shape
    variance, directions = torch.linalg.eigh((x.T @ x if n > D else x @ x.T) / n)
    if n <= D:
        there = variance > variance.max() * 1e-6
        variance, directions = variance[there], x.T @ directions[:, there] / (n * variance[there]).sqrt()
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return Axes(variance.clamp(min=0), directions * largest.sign())  # an axis has no sign of its own, and rounding would choose
