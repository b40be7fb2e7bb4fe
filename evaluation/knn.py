"""The k-nearest-neighbour probe: neighbours by cosine vote with weight exp(cosine / T), as in Wu et al. 2018 (1805.01978)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.features import Labelled, standardise

NEIGHBOURS = 20
TEMPERATURE = 0.07
CHUNK = 500  # test images at a time: bounds memory at CHUNK x training images


def knn_top1(train: Labelled, test: Labelled, classes: int) -> float:
    """Accuracy on ``test`` of the vote of its nearest training images, as a fraction."""
    x_train, x_test = (F.normalize(x) for x in standardise(train.x, test.x))
    hits = [vote(x_train, train.y, x, classes) == y for x, y in zip(x_test.split(CHUNK), test.y.split(CHUNK), strict=True)]
    return torch.cat(hits).float().mean().item()


def vote(x_train: Tensor, y_train: Tensor, x: Tensor, classes: int) -> Tensor:
    """The class (n,) with the most weight among each row's neighbours."""
    cosine, nearest = (x @ x_train.T).topk(min(NEIGHBOURS, len(x_train)))
    weights = torch.zeros(len(x), classes).scatter_add_(1, y_train[nearest], (cosine / TEMPERATURE).exp())
    return weights.argmax(1)
