"""Copies of a training state in host memory, which do not change while training goes on."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor


def snapshot(state: Any, buffers: Any = None) -> Any:
    """A copy of nested dicts, lists and tuples whose tensors lie in host memory, with the strides that they had.

    Args:
        state: what is copied; values that are no tensors are taken as they are.
        buffers: an earlier snapshot that nobody needs any more. Its tensors are written over where they fit: new memory would
            cost as much again as the copy, and pinned memory more.
    """
    copied = copy(state, buffers)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()  # one wait for all copies
    return copied


def copy(value: Any, buffer: Any) -> Any:
    if isinstance(value, Tensor):
        return place_for(value, buffer).copy_(value.detach(), non_blocking=True)
    if isinstance(value, dict):
        old = buffer if isinstance(buffer, dict) else {}
        return {name: copy(each, old.get(name)) for name, each in value.items()}
    if isinstance(value, list | tuple):
        places = buffer if isinstance(buffer, list | tuple) and len(buffer) == len(value) else [None] * len(value)
        return type(value)(copy(each, its) for each, its in zip(value, places, strict=True))
    return value


def place_for(tensor: Tensor, buffer: Any) -> Tensor:
    """``buffer`` if it is a place for ``tensor``, or a new one; pinned where ``tensor`` is on a GPU and the host can."""
    own = tensor.shape, tensor.dtype, tensor.stride()
    if isinstance(buffer, Tensor) and (buffer.shape, buffer.dtype, buffer.stride()) == own:
        return buffer
    with suppress(RuntimeError):  # a container may pin little, and a slower copy is better than no checkpoint
        return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    return torch.empty_like(tensor, device="cpu")
