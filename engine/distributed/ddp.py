"""DistributedDataParallel around the one module whose forward takes both views and returns the losses."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from amdim.model.collectives import world_size


def parallel(model: nn.Module, device: torch.device, compress: str = "off") -> nn.Module:
    """``model`` itself on one rank; else a module that also averages the gradients of all ranks as they are made.

    All ranks get the weights of rank 0. Buffers are not sent: the statistics of the batches are those of all ranks already.

    Args:
        model: on ``device``.
        device: this rank's.
        compress: "bf16" sends gradients in 16 bits: half the bytes, and rounding errors of one in 256.
    """
    if world_size() == 1:
        return model
    # A 1x1 kernel's gradient may say other strides for the same bytes.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    own = [device.index] if device.type == "cuda" else None
    # After its first step DDP sorts gradients into other buckets, unless some may be unused, and the order in which gloo adds up
    # follows: a resumed run would differ in its last bits. NCCL's overlap is worth more, and its bits are not promised.
    steady = device.type == "cpu"
    wrapped = DistributedDataParallel(
        model, own, forward_sync_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=steady
    )
    if compress == "bf16":
        wrapped.register_comm_hook(None, lambda _, bucket: in_bfloat16(bucket))
    return wrapped


def in_bfloat16(bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """The mean of a bucket of gradients, sent in 16 bits. torch's own hook does the same and refuses all but NCCL."""
    small = (bucket.buffer() / world_size()).to(torch.bfloat16)
    sent: torch.futures.Future[list[torch.Tensor]] = dist.all_reduce(small, async_op=True).get_future()
    return sent.then(lambda done: bucket.buffer().copy_(done.value()[0]))


def from_all(value: Any) -> list[Any]:
    """What each rank has, in their order. For what is small and rare: it waits for the device."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def from_first(value: Any) -> Any:
    """What rank 0 has."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
