"""Classifiers on the representation r1: linear and MLP, as in amdim-public, for training beside the encoder or after it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amdim.model.collectives import all_reduce_sum, rank, world_size
from amdim.model.global_batchnorm import GlobalBatchNorm

LOGIT_CLIP = 10.0
LOGIT_PENALTY = 1e-3


class LinearProbe(nn.Linear):
    """Logits (B, classes) of features (B, R)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)


class GlobalDropout(nn.Module):
    """nn.Dropout of rows (rows, F), with a mask that is drawn for the rows of all ranks and cut.

    The ranks' generators are kept in step, so how many ranks there are does not change the numbers.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        rows, features = x.shape
        drawn = torch.rand(world_size() * rows, features, device=x.device)[rank() * rows : (rank() + 1) * rows]
        return x * (drawn >= self.p) / (1 - self.p)


class MLPProbe(nn.Sequential):
    """One hidden layer of 1,024 units with batch normalisation and dropout: logits (B, classes) of features (B, R)."""

    def __init__(self, features: int, classes: int, hidden: int = 1024, dropout: float = 0.2) -> None:
        super().__init__(
            GlobalDropout(dropout),
            nn.Linear(features, hidden, bias=False),
            GlobalBatchNorm(hidden),
            nn.ReLU(inplace=True),
            GlobalDropout(dropout),
            nn.Linear(hidden, classes),
        )


def probe_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of 10 tanh(logits / 10) plus 1e-3 mean(logits^2), over the labelled samples of a batch.

    Args:
        logits: (B, classes).
        labels: (B,) int64; -1 is unlabelled and ignored.

    Returns:
        A sum over labelled samples divided by max(1, their number): 0, and not NaN, where there is none. Over several ranks the
        number is their mean number, so that the mean loss over ranks is that of the whole batch.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labelled = labels >= 0
    clipped = LOGIT_CLIP * torch.tanh(logits / LOGIT_CLIP)
    each = F.cross_entropy(clipped, labels, ignore_index=-1, reduction="none") + LOGIT_PENALTY * logits.square().mean(1)
    return (each * labelled).sum() / (all_reduce_sum(labelled.sum()) / world_size()).clamp(min=1 / world_size())


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many labelled samples have their label as the largest logit; a tensor, so that nothing waits for the device."""
    return (logits.argmax(1) == labels).sum()
