"""The k-nearest-neighbour probe: neighbours by cosine vote with weight exp(cosine / T), as in Wu et al. 2018 (1805.01978).

Shape letters: m test images of a piece, C classes, k neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from amdim.evaluation.features import LabeledFeatures, Scaled, fit_scaler
from amdim.evaluation.probes.classification_metrics import Fitted

NEIGHBOURS = 20
TEMPERATURE = 0.07


def train_knn(train: LabeledFeatures, classes: int, device: torch.device) -> Fitted:
    """The vote of the nearest training images, by their centred view."""
    train = train.centred()
    scale = fit_scaler(train, device)

    def unit(x: Tensor) -> Tensor:
        return F.normalize(scale(x))

    known = Scaled(train, unit, device)
    return Fitted(lambda x: vote(known, unit(x), classes), {})


def vote(known: Scaled, x: Tensor, classes: int) -> Tensor:
    """Each class's weight (m, C) among the neighbours of each row."""
    cosine, label = x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    for others, y in known:  # the nearest so far, and those of one more piece
        cosine = torch.cat([cosine, x @ others.T], 1)
        label = torch.cat([label, y.expand(len(x), -1)], 1)
        cosine, nearest = cosine.topk(min(NEIGHBOURS, cosine.shape[1]))
        label = label.gather(1, nearest)
    return x.new_zeros(len(x), classes).scatter_add_(1, label, (cosine / TEMPERATURE).exp())
