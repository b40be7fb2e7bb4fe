"""A training step as amdim-public arranges it, on our weights: what the fast arrangement is measured against and must agree with.

Every unit pools its input, even over windows of one pixel, and appends zero channels by copying; the objective keeps all scores
in one tensor and finds an image's own by mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amdim.model.amdim import AMDIM, Losses
from amdim.model.encoder import Features, Head, ResidualUnit
from amdim.model.multiscale_nce import MultiscaleLoss, locations_of, sources_of
from bench.masked import masked_nce


class OriginalUnit(ResidualUnit):
    """W2 relu(BN?(W1 x)) + average pool of x, followed by zero channels."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv2(F.relu(self.bn(self.conv1(x))))
        short = F.avg_pool2d(x, self.kernel, self.stride)
        if self.pad:
            short = torch.cat([short, short.new_zeros(len(x), self.pad, *short.shape[2:])], 1)
        return hidden + short


class OriginalHead(Head):
    """BN(W2 relu(BN?(W1 x)) + Ws x + b)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn_out(self.conv2(F.relu(self.bn_hidden(self.conv1(x)))) + self.shortcut(x))


class OriginalLoss(AMDIM):
    """AMDIM with the masked form of the objective."""

    def forward(self, x1: Tensor, x2: Tensor, labels: Tensor, locations: Tensor) -> Losses:
        view1, view2 = self.encoder(x1), self.encoder(x2)
        objective = masked_objective(view1, view2, locations, self.clip)
        features = torch.stack([view1.r1, view2.r1], 1).flatten(0, 1).flatten(1).detach()
        probes, right_linear, right_mlp = self.probe(features, labels.repeat_interleave(2))
        mixture, regulariser = self.mix(view1, view2)
        total = objective.total - objective.loss_1t7 * self.replaces + mixture + regulariser + probes
        return Losses(total, objective, mixture, probes, right_linear, right_mlp, 2 * (labels >= 0).sum())


def masked_objective(view1: Features, view2: Features, locations: Tensor, clip: float) -> MultiscaleLoss:
    """``multiscale_nce`` as six separate terms."""
    terms = []
    for source, target, location in ((view1, view2, locations[0]), (view2, view1, locations[1])):
        r1, r5 = sources_of(source, location).unbind(1)
        to_5, to_7 = locations_of(target.r5), locations_of(target.r7)
        terms += [masked_nce(r1, to_5, clip), masked_nce(r1, to_7, clip), masked_nce(r5, to_5, clip)]
    losses, regularisers = zip(*terms, strict=True)
    loss_1t5, loss_1t7, loss_5t5 = (torch.stack(losses[:3]) + torch.stack(losses[3:])) / 2
    return MultiscaleLoss(loss_1t5, loss_1t7, loss_5t5, torch.stack(regularisers).sum() / 2)


ORIGINALS: dict[type[nn.Module], type[nn.Module]] = {ResidualUnit: OriginalUnit, Head: OriginalHead}


def rearrange(module: nn.Module) -> None:
    """Turns the units and heads inside ``module`` into the original's, weights and names as they are."""
    for part in module.modules():
        part.__class__ = ORIGINALS.get(type(part), type(part))
