"""What one training step computes: both views through the encoder, the objective, and the probes beside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from amdim.model.collectives import AsyncAllGather
from amdim.model.encoder import Encoder, EncoderConfig, Features
from amdim.model.mixture import ALPHA, Mixture, mixture_both_ways
from amdim.model.multiscale_nce import CLIP, MultiscaleLoss, score, sources_of
from amdim.model.probes import LinearProbe, MLPProbe, correct, probe_loss

MODES = ("join", "replace")


class Losses(NamedTuple):
    """``total`` is what is minimised; the rest is for the logs.

    ``mixture`` is 0 where there are no mixture features; the regulariser of its scores is counted with the objective's.
    """

    total: Tensor
    objective: MultiscaleLoss
    mixture: Tensor
    probes: Tensor
    correct_linear: Tensor
    correct_mlp: Tensor
    labelled: Tensor


class AMDIM(nn.Module):
    """Encoder, online probes and loss in one module with one forward, which is what DistributedDataParallel wraps.

    Args:
        config: the encoder.
        classes: number of classes of the online probes; 0 leaves them out.
        clip: c of the objective's soft clip.
        mixture: K mixture features that predict the 7x7 locations together; 0 leaves them out.
        mixture_mode: "join" adds their term to the objective's three; "replace" has it minimised instead of r1 to r7, which is
            then only measured (its regulariser stays).
        mixture_alpha: weight of the posterior's entropy.

    Raises:
        ValueError: for another mode.
    """

    def __init__(
        self,
        config: EncoderConfig,
        classes: int,
        clip: float = CLIP,
        mixture: int = 0,
        mixture_mode: str = "replace",
        mixture_alpha: float = ALPHA,
    ) -> None:
        super().__init__()
        if mixture_mode not in MODES:
            raise ValueError(f"mixture mode {mixture_mode}: there are {' and '.join(MODES)}")
        self.encoder = Encoder(config)
        self.linear = LinearProbe(config.embedding, classes) if classes else None
        self.mlp = MLPProbe(config.embedding, classes) if classes else None
        self.mixture = Mixture(config.embedding, mixture) if mixture else None
        self.replaces = bool(mixture) and mixture_mode == "replace"
        self.clip, self.alpha = clip, mixture_alpha

    def forward(self, x1: Tensor, x2: Tensor, labels: Tensor, locations: Tensor) -> Losses:
        """Losses of two views (B, 3, S, S) of the same images, their labels (B,), and (2, B) source locations of r5 to r5."""
        # Each view is a forward of its own, so that batch statistics are taken per view as in the original.
        view1 = self.encoder(x1)
        there = AsyncAllGather(sources_of(view1, locations[0]))  # travels between ranks while the other view is encoded
        view2 = self.encoder(x2)
        objective = score(there, AsyncAllGather(sources_of(view2, locations[1])), view1, view2, self.clip)
        # Detached: labels must not reach the encoder.
        features = torch.stack([view1.r1, view2.r1], 1).flatten(0, 1).flatten(1).detach()
        probes, right_linear, right_mlp = self.probe(features, labels.repeat_interleave(2))
        labelled = 2 * (labels >= 0).sum()
        mixture, regulariser = self.mix(view1, view2)
        total = objective.total - objective.loss_1t7 * self.replaces + mixture + regulariser + probes
        objective = objective._replace(regulariser=objective.regulariser + regulariser)
        return Losses(total, objective, mixture, probes, right_linear, right_mlp, labelled)

    def mix(self, view1: Features, view2: Features) -> tuple[Tensor, Tensor]:
        """The mixture term and its regulariser; zeros without mixture features."""
        if self.mixture is None:
            zero = view1.r1.new_zeros((), dtype=torch.float32)
            return zero, zero
        return mixture_both_ways(self.mixture, view1, view2, self.clip, self.alpha)

    def probe(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The probes' loss on features (B, R) and how many images each gets right; zeros without classes."""
        if self.linear is None or self.mlp is None:
            zero = features.new_zeros((), dtype=torch.float32)
            return zero, zero, zero
        linear, mlp = self.linear(features), self.mlp(features)
        loss = probe_loss(linear, labels) + probe_loss(mlp, labels)
        return loss, correct(linear, labels), correct(mlp, labels)
