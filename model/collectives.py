"""Sums and gathers over ranks that autograd can go back through; on one rank they do nothing.

Every rank minimises the mean loss of its own images, and DistributedDataParallel averages the gradients, so what is minimised is
the mean over all ranks. Each operation here hands back the gradient of the *sum* of all ranks' losses, which is what that average
needs: a gather returns its gradients by reduce-scatter, a sum by another sum.

Shape letters: B images of this rank, N of all ranks, W ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """W, the ranks that train together; 1 where none were started."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This one among them."""
    return dist.get_rank() if dist.is_initialized() else 0


class AsyncAllGather:
    """(B, ...) of this rank on its way to all ranks; all hold the same B.

    Autograd runs a graph backwards, so what is computed between the start and ``wait`` hides the collective in both directions:
    the gradients travel while those of that computation are made.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._work: Any = None
        self._own: Tensor | None = None
        self._tensor: Tensor | None = _Start.apply(tensor, self) if world_size() > 1 else tensor

    def wait(self) -> Tensor:
        """All ranks' tensors in their order: (N, ...). Once: a tensor kept here would be a cycle through its own graph."""
        tensor, self._tensor = self._tensor, None
        if tensor is None:
            raise RuntimeError("these tensors were waited for already")
        gathered: Tensor = _Wait.apply(tensor, self) if world_size() > 1 else tensor
        return gathered


def gather(tensor: Tensor) -> Tensor:
    """(B, ...) of every rank, in their order: (N, ...)."""
    return AsyncAllGather(tensor).wait()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of all ranks' tensors."""
    total: Tensor = _Sum.apply(tensor) if world_size() > 1 else tensor
    return total


class _Start(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, gathering: AsyncAllGather) -> Tensor:
        ctx.gathering = gathering
        out = tensor.new_empty(world_size() * len(tensor), *tensor.shape[1:])
        gathering._work = dist.all_gather_single(out, tensor.contiguous(), async_op=True)
        return out

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, None]:
        gathering = ctx.gathering
        gathering._work.wait()
        own, gathering._own, gathering._work = gathering._own, None, None
        return own, None


class _Wait(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gathered: Tensor, gathering: AsyncAllGather) -> Tensor:
        ctx.gathering = gathering
        gathering._work.wait()
        return gathered.view_as(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gathering = ctx.gathering
        gathering._own = gradient.new_empty(len(gradient) // world_size(), *gradient.shape[1:])
        gathering._work = dist.reduce_scatter_single(gathering._own, gradient.contiguous(), async_op=True)
        return gradient, None  # stands in for the gradient that ``_Start`` waits for


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)
