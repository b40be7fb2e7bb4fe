"""One term of the objective as amdim-public computes it (costs.py, re-expressed): every score in one tensor, own images by mask.

Five score-sized tensors live until the backward pass. It is here to be measured against, and held to the same numbers by a test.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amdim.model.multiscale_nce import CLIP, REGULARISER


def masked_nce(sources: Tensor, targets: Tensor, clip: float = CLIP) -> tuple[Tensor, Tensor]:
    """Loss and regulariser of sources (B, R) that predict targets (B, L, R), in float32 at least."""
    (B, L, R), wide = targets.shape, torch.promote_types(targets.dtype, torch.float32)
    raw = (sources @ targets.reshape(B * L, R).T).to(wide).view(B, B, L) / R**0.5
    own = torch.eye(B, device=raw.device, dtype=wide)[:, :, None]
    score = clip * torch.tanh(raw / clip)
    positives = (own * score).sum(1)
    others = ((1 - own) * score - clip * own).flatten(1)
    largest = others.max(1, keepdim=True).values.detach()
    negatives = ((1 - own).expand_as(score).flatten(1) * torch.exp(others - largest)).sum(1, keepdim=True)
    loss = torch.log(torch.exp(positives - largest) + negatives) - (positives - largest)
    return loss.mean(), REGULARISER * raw.square().mean()
