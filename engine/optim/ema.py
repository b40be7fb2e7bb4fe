"""A moving average of the weights: ``--ema``. What probes make of it: docs/recipes.md.

Running statistics of the normalisation are averaged as the weights are: each is the mean over the same recent steps, so the
averaged encoder's maps are normalised by statistics of maps that such weights made. They are no statistics of its own maps, which
would take another pass over the images; counts of batches are the last ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amdim.engine.checkpoint import Checkpoint


class ModelEma:
    """Averages in float32, on the device of ``model``.

    Args:
        model: read after each update; never written to.
        decay: D. Update t (from 0) keeps min(D, t / (t + 9)) of what was, so the first weights of all, which are random, have
            no part in it; this depends on t alone, and the averages are the whole state.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tracked = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
        self.averages = {name: torch.zeros_like(value) for name, value in self.tracked.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After update ``step`` (from 0). A few kernels for all tensors, and nothing waits for a GPU."""
        kept = min(self.decay, step / (step + 9))
        torch._foreach_lerp_(list(self.averages.values()), list(self.tracked.values()), 1 - kept)

    def state_dict(self) -> dict[str, Tensor]:
        return self.averages

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, average in self.averages.items():
            average.copy_(state[name])


def wanted(saved: Checkpoint, last: bool) -> tuple[Checkpoint, bool]:
    """The checkpoint with the weights to evaluate, the averages unless the ``last`` are asked for, and whether it is these."""
    mean = not last and bool(saved.trainer.get("average"))
    return (averaged(saved) if mean else saved), mean


def averaged(saved: Checkpoint) -> Checkpoint:
    """The checkpoint with the averages in place of its last weights, where it has them."""
    return saved._replace(weights=saved.weights | saved.trainer.get("average", {}))
