"""Sums of losses and seconds between two log lines.

Losses are added up on the device; reading them is the training loop's one wait for it.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from amdim.engine.distributed.ddp import from_all
from amdim.model.amdim import Losses
from amdim.model.collectives import all_reduce_sum, rank, world_size

LOSSES = ("loss", "loss_1t5", "loss_1t7", "loss_5t5", "regulariser", "loss_mixture", "probes")
NAMES = (*LOSSES, "linear", "mlp", "labelled", "grad_norm")


class Metrics:
    """Collects over a window of steps; ``read`` empties it."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(NAMES), dtype=torch.float64, device=device)
        self.count = 0
        self.start()

    def start(self) -> None:
        """Begins to measure time: what came before, setting up or a run that was stopped, is not counted."""
        self.timed, self.data_s, self.since = 0, 0.0, time.perf_counter()

    def add(self, losses: Losses, norm: Tensor) -> None:
        """One step's losses, and the norm of its gradient; one that overflowed in float16 counts as 0, as it moved nothing."""
        objective = losses.objective
        values = (losses.total - losses.probes, *objective, *losses[2:], torch.where(norm.isfinite(), norm, 0))
        self.sums += torch.stack([value.detach().double() for value in values])
        self.count += 1
        self.timed += 1

    def read(self, batch: int) -> dict[str, Any]:
        """Means over the window and all ranks, each of which must ask.

        ``data_s`` and ``compute_s`` are seconds a step; accuracies are None without labels.
        """
        # A rank's losses are means over its images.
        values = dict(zip(NAMES, (all_reduce_sum(self.sums) / world_size()).tolist(), strict=True))  # host sync
        elapsed = time.perf_counter() - self.since
        linear, mlp, labelled = (values.pop(name) for name in ("linear", "mlp", "labelled"))
        row: dict[str, Any] = {name: value / self.count for name, value in values.items()}
        row["linear_top1"] = linear / labelled if labelled else None
        row["mlp_top1"] = mlp / labelled if labelled else None
        row["images_per_s"] = batch * self.timed / elapsed
        row["data_s"] = self.data_s / self.timed
        row["compute_s"] = (elapsed - self.data_s) / self.timed
        self.sums.zero_()
        self.count = 0
        self.start()
        return row

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"sums": torch.stack(from_all(self.sums.cpu())), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of as many ranks each goes on with its own sums, to the last bit; of another number all have their mean."""
        sums = state["sums"].reshape(-1, len(NAMES))
        self.sums.copy_(sums[rank()] if len(sums) == world_size() else sums.mean(0))
        self.count = state["count"]
