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


def world() -> int:
    """W, the ranks that train together; 1 where none were started."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This one among them."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather(tensor: Tensor) -> Tensor:
    """(B, ...) of every rank, in their order: (N, ...). All ranks hold the same B."""
    return _Gather.apply(tensor) if world() > 1 else tensor


def add_up(tensor: Tensor) -> Tensor:
    """The sum of all ranks' tensors."""
    return _Sum.apply(tensor) if world() > 1 else tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        tensor = tensor.contiguous()
        out = tensor.new_empty(world() * len(tensor), *tensor.shape[1:])
        dist.all_gather_single(out, tensor)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        own = gradient.new_empty(len(gradient) // world(), *gradient.shape[1:])
        dist.reduce_scatter_single(own, gradient.contiguous())
        return own


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return _Sum.forward(ctx, gradient)
