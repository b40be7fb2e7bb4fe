"""Residual units as matrix products, for the CPU.

In channels-last layout a map is a matrix with a row a pixel, so a 1x1 convolution is one product, and so is any convolution whose
windows are laid out as rows. oneDNN's own convolutions lose most of their time on the small maps of this encoder, above all in
gradients of weights (docs/step.md). A unit is two functions, so that normalisation can stand between them:

    hidden, short = open_unit(x, W1, stride, relu)    W1 over windows, then ReLU if asked; the average pool of the same windows
    y = close_unit(hidden, W2, short)                 W2 hidden + short, which has zeros in the channels that it lacks

ReLU makes a tensor of its own: torch's kernels for bfloat16 are slower in place, and what it came from is not kept.

They keep for the backward pass what plain autograd would keep, and the weights as they were multiplied. The gradients of the two
paths meet inside a product instead of in a pass over the map, and gradients of weights leave as float32 whatever the maps are.

Shape letters: B images, C and O channels in and out, k kernel, s stride, P pixels of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def serve(x: Tensor) -> bool:
    """Whether these functions are for ``x``: cuDNN needs no such help, and inductor makes better code of the plain operations."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def open_unit(x: Tensor, weight: Tensor, stride: int = 1, relu: bool = False) -> tuple[Tensor, Tensor]:
    """Convolves and pools the same windows of (B, C, H, W), with weights (O, C, k, k): (B, O, H', W') and (B, C, H', W').

    Differentiable once.
    """
    hidden, short = _Open.apply(x.to(multiplied_in(x)), weight, stride, relu)
    return hidden, short


def close_unit(hidden: Tensor, weight: Tensor, short: Tensor) -> Tensor:
    """Weights (O, O, 1, 1) times (B, O, H, W), plus ``short`` (B, C, H, W) in the first C <= O channels: (B, O, H, W).

    Differentiable once.
    """
    dtype = multiplied_in(hidden)
    y: Tensor = _Close.apply(hidden.to(dtype), weight, short.to(dtype))
    return y


def multiplied_in(x: Tensor) -> torch.dtype:
    """The type in which autocast, where it is on, would have ``x`` multiplied."""
    autocast = torch.is_autocast_enabled(x.device.type) and x.dtype is not torch.float64
    return torch.get_autocast_dtype(x.device.type) if autocast else x.dtype


class _Open(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, s: int, relu: bool) -> tuple[Tensor, Tensor]:
        k, w = weight.shape[-1], weight.to(x.dtype)
        if in_rows(k, s):
            size = [(side - k) // s + 1 for side in x.shape[2:]]
            hidden = as_map(windows(x, k, s) @ matrix(w).T, size)
        else:
            hidden = F.conv2d(x, w, stride=s)
        if relu:
            hidden = torch.relu(hidden)  # slower in place
        ctx.save_for_backward(x, w, hidden if relu else None)
        ctx.stride = s
        return hidden, F.avg_pool2d(x, k, s) if k > 1 else x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hidden: Tensor, d_short: Tensor) -> tuple[Tensor | None, ...]:
        x, w, hidden = ctx.saved_tensors
        k, s = w.shape[-1], ctx.stride
        if hidden is not None:
            d_hidden = torch.ops.aten.threshold_backward(d_hidden, hidden, 0)
        if k == 1:
            d_x = as_map(torch.addmm(rows(d_short), rows(d_hidden), matrix(w)), x.shape[2:])
        else:
            d_x = input_gradient(d_hidden, x, w, s)
            add_pool_gradient(d_x, d_short, k, s)
        return d_x, weight_gradient(d_hidden, x, w, s), None, None


class _Close(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, short: Tensor) -> Tensor:
        w, channels = weight.to(hidden.dtype), short.shape[1]
        if channels == len(w):
            y = torch.addmm(rows(short), rows(hidden), matrix(w).T)
        else:
            y = rows(hidden) @ matrix(w).T
            y[:, :channels] += rows(short)
        ctx.save_for_backward(hidden, w)
        ctx.channels = channels
        return as_map(y, hidden.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, ...]:
        hidden, w = ctx.saved_tensors
        d_hidden = as_map(rows(d_y) @ matrix(w), hidden.shape[2:])
        return d_hidden, weight_gradient(d_y, hidden, w, 1), d_y[:, : ctx.channels]


def in_rows(k: int, s: int) -> bool:
    """Whether windows are laid out as rows. Those that overlap and are strided too are on maps large enough for oneDNN."""
    return s in (1, k)


def rows(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B H W, C), a row a pixel: a view if ``x`` is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def as_map(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """(B H W, C) -> (B, C, H, W), channels-last: a view."""
    return pixels.view(-1, *size, pixels.shape[1]).permute(0, 3, 1, 2)


def windows(x: Tensor, k: int, s: int) -> Tensor:
    """(B, C, H, W) -> (B P, k k C), a row a window: a view where a window is one pixel or the whole map."""
    patches = x.permute(0, 2, 3, 1).unfold(1, k, s).unfold(2, k, s)
    return patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, k * k * x.shape[1])


def matrix(weight: Tensor) -> Tensor:
    """(O, C, k, k) -> (O, k k C), in the order of ``windows``: a view if ``weight`` is channels-last."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def weight_gradient(d_y: Tensor, x: Tensor, w: Tensor, s: int) -> Tensor:
    """(O, C, k, k) in channels-last layout, float32 at least."""
    k = w.shape[-1]
    if in_rows(k, s):
        d_w = (rows(d_y).T @ windows(x, k, s)).view(len(w), k, k, -1).permute(0, 3, 1, 2)
    else:
        d_w = convolution_backward(d_y, x, w, s, [False, True, False])[1]
    return d_w.to(torch.promote_types(d_w.dtype, torch.float32))


def input_gradient(d_y: Tensor, x: Tensor, w: Tensor, s: int) -> Tensor:
    """(B, C, H, W), a tensor of its own. By a product where windows share no pixel: elsewhere oneDNN adds them up as fast."""
    k, (height, width), (down, across) = w.shape[-1], x.shape[2:], d_y.shape[2:]
    if k != s and (down, across) != (1, 1):
        return convolution_backward(d_y, x, w, s, [True, False, False])[0]
    d_windows = (rows(d_y) @ matrix(w)).view(-1, down, across, k, k, x.shape[1]).transpose(2, 3)
    d_x = d_windows.reshape(-1, down * k, across * k, x.shape[1]).permute(0, 3, 1, 2)
    return d_x if d_x.shape == x.shape else F.pad(d_x, (0, width - across * k, 0, height - down * k))


def convolution_backward(d_y: Tensor, x: Tensor, w: Tensor, s: int, wanted: list[bool]) -> tuple[Tensor, ...]:
    """torch's own gradients of input, weight and bias."""
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        d_y, x, w, None, [s, s], [0, 0], [1, 1], False, [0, 0], 1, wanted
    )
    return gradients


def add_pool_gradient(d_x: Tensor, d_short: Tensor, k: int, s: int) -> None:
    """Adds the gradient of an average pool over windows of m s = k pixels, in place.

    The pixels of an s x s block are in the same m x m windows, so that the blocks' gradients are an average pool again.
    """
    m, left = divmod(k, s)
    if left:
        raise ValueError(f"windows of {k} pixels every {s}: no whole number of steps")
    blocks = F.avg_pool2d(F.pad(d_short, [m - 1] * 4), m, 1, divisor_override=k * k)
    h, w = blocks.shape[2:]
    pixels = d_x[:, :, : h * s, : w * s].unflatten(3, (w, s)).unflatten(2, (h, s))
    pixels += blocks[:, :, :, None, :, None]
