"""Notices numbers that are no numbers: on the device, without the host waiting for it, and in what is about to be saved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amdim.errors import UserError

NEVER = 2**62
ADVICE = "no checkpoint holds it, and an earlier one, where there is one, is good: try a lower --lr with another --run"


class NotFinite(UserError):
    """A loss, a gradient or a weight is infinite or not a number."""


class NonFiniteGuard:
    """Remembers on the device the first step with a loss or a gradient that is not finite.

    The host reads it as it comes in: on a GPU by a copy to pinned memory that nobody waits for, so as many steps later
    as the host is ahead, and one.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.first = torch.full((), NEVER, dtype=torch.int64, device=device)
        self.read = torch.full((), NEVER, dtype=torch.int64)
        self.arrived = torch.cuda.Event() if self.cuda else None
        if self.cuda:
            self.read = self.read.pin_memory()

    def note(self, step: int, values: list[Tensor]) -> None:
        """Looks at scalars of ``step`` (from 1), in the device's own time."""
        finite = torch.stack([value.detach().float() for value in values]).isfinite().all()
        self.first = torch.where(finite, self.first, self.first.clamp(max=step))
        if self.arrived is None:
            self.read = self.first
        elif self.arrived.query():  # the copy before this one is there, and was looked at
            self.read.copy_(self.first, non_blocking=True)
            self.arrived.record()

    def check(self, wait: bool = False) -> None:
        """Raises for what has been noted, as far as it has come in; with ``wait``, for all of it.

        Raises:
            NotFinite: names the first step.
        """
        if wait:
            self.complain(int(self.first))
        elif self.arrived is None or self.arrived.query():
            self.complain(int(self.read))

    def complain(self, first: int) -> None:
        if first < NEVER:
            raise NotFinite(f"the loss or a gradient is not finite at step {first:,}; {ADVICE}")


def check_state(state: Any) -> None:
    """Looks at every tensor in nested dicts and lists in host memory.

    Raises:
        NotFinite: one of them holds what is no number.
    """
    tensors = [tensor for tensor in leaves(state) if tensor.is_floating_point() and tensor.numel()]
    norms = torch._foreach_norm(tensors, float("inf")) if tensors else []
    if not all(norm.isfinite() for norm in norms):
        raise NotFinite(f"a weight or a moment is not finite; {ADVICE}")


def leaves(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [leaf for part in parts for leaf in leaves(part)]
