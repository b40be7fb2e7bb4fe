"""Residual units as matrix products, for the CPU.

In channels-last layout a map is a matrix with a row a pixel, so a 1x1 convolution is one product, and so is any convolution whose
windows are laid out as rows. oneDNN's own convolutions lose most of their time on the small maps of this encoder, above all in the
backward pass (measured: docs/step.md). A unit is two functions, so that normalisation can stand between them:

    hidden, short = open_unit(x, W1, stride, relu)    W1 over windows, then ReLU if asked; the average pool of the same windows
    y = close_unit(hidden, W2, short)                 short, padded with zero channels, + W2 hidden

They keep for the backward pass what plain autograd would keep. The gradients of the two paths meet inside a product instead of in
passes over the map, and gradients of weights leave as float32 whatever the maps are.

Shape letters: B images, C and O channels in and out, k kernel, s stride, P output pixels of an image.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def serve(x: Tensor) -> bool:
    """Whether these functions are for ``x``: on GPUs cuDNN is, and inductor fuses plain operations by itself."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def open_unit(x: Tensor, weight: Tensor, stride: int = 1, relu: bool = False) -> tuple[Tensor, Tensor]:
    """Convolves and pools the same windows: (B, C, H, W) with weights (O, C, k, k) -> (B, O, H', W') and (B, C, H', W')."""
    hidden, short = _Open.apply(x.to(product_type(x)), weight, stride, relu)
    return hidden, short


def close_unit(hidden: Tensor, weight: Tensor, short: Tensor) -> Tensor:
    """The first channels of W2 hidden, plus ``short`` (B, at most O, H', W'): (B, O, H', W') with weights (O, O, 1, 1)."""
    y: Tensor = _Close.apply(hidden.to(product_type(hidden)), weight, short.to(product_type(short)))
    return y


def product_type(x: Tensor) -> torch.dtype:
    """What autocast would multiply ``x`` in."""
    autocast = torch.is_autocast_enabled(x.device.type) and x.dtype is not torch.float64
    return torch.get_autocast_dtype(x.device.type) if autocast else x.dtype


class _Open(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, s: int, relu: bool) -> tuple[Tensor, Tensor]:
        k, w = weight.shape[-1], weight.to(x.dtype)
        if as_rows(k, s):
            hidden = maps(windows(x, k, s) @ matrix(w).T, pooled(x, k, s))
        else:
            hidden = F.conv2d(x, w, stride=s)
        hidden = hidden.relu_() if relu else hidden
        ctx.save_for_backward(x, w, hidden if relu else None)
        ctx.stride = s
        return hidden, (F.avg_pool2d(x, k, s) if k > 1 else x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hidden: Tensor, d_short: Tensor) -> tuple[Tensor | None, ...]:
        x, w, hidden = ctx.saved_tensors
        k, s = w.shape[-1], ctx.stride
        if hidden is not None:
            d_hidden = torch.ops.aten.threshold_backward(d_hidden, hidden, 0)
        if k == 1:
            d_x, d_w = torch.addmm(rows(d_short), rows(d_hidden), matrix(w)), rows(d_hidden).T @ rows(x)
            return maps(d_x, x.shape[2:]), wide(d_w.view(w.shape)), None, None
        if as_rows(k, s):
            d_x = from_windows(rows(d_hidden) @ matrix(w), x.shape, k, s)
            d_w = (rows(d_hidden).T @ windows(x, k, s)).view(-1, k, k, x.shape[1]).permute(0, 3, 1, 2)
        else:
            d_x, d_w, _ = torch.ops.aten.convolution_backward(
                d_hidden, x, w, None, [s, s], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
            )
        add_pool_gradient(d_x, d_short, k, s)
        return d_x, wide(d_w), None, None


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
        return maps(y, hidden.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, ...]:
        hidden, w = ctx.saved_tensors
        g = rows(d_y)
        d_w = (g.T @ rows(hidden)).view(w.shape)
        return maps(g @ matrix(w), hidden.shape[2:]), wide(d_w), d_y[:, : ctx.channels]


def as_rows(k: int, s: int) -> bool:
    """Whether windows are laid out as rows. Overlapping strided windows are left to oneDNN: they are on maps that fill it well."""
    return s in (1, k)


def rows(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B H W, C): a view if ``x`` is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def maps(m: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B H W, C) -> (B, C, H, W) in channels-last layout: a view."""
    return m.view(-1, *size, m.shape[1]).permute(0, 3, 1, 2)


def matrix(w: Tensor) -> Tensor:
    """(O, C, k, k) -> (O, k k C): a view if ``w`` is channels-last."""
    return w.permute(0, 2, 3, 1).reshape(len(w), -1)


def wide(d_w: Tensor) -> Tensor:
    return d_w.to(torch.promote_types(d_w.dtype, torch.float32))


def pooled(x: Tensor, k: int, s: int) -> tuple[int, int]:
    return (x.shape[2] - k) // s + 1, (x.shape[3] - k) // s + 1


def windows(x: Tensor, k: int, s: int) -> Tensor:
    """(B, C, H, W) -> (B P, k k C), a row a window: a view where a window is one pixel or the whole map."""
    patches = x.permute(0, 2, 3, 1).unfold(1, k, s).unfold(2, k, s).permute(0, 1, 2, 4, 5, 3)
    return patches.reshape(-1, k * k * x.shape[1])


def from_windows(d: Tensor, shape: torch.Size, k: int, s: int) -> Tensor:
    """The adjoint of ``windows``: sums (B P, k k C) into (B, C, H, W)."""
    B, C, H, W = shape
    h, w = (H - k) // s + 1, (W - k) // s + 1
    d = d.view(B, h, w, k, k, C)
    if k == s:
        d_x = d.new_zeros(B, H, W, C) if (h * k, w * k) != (H, W) else d.new_empty(B, H, W, C)
        d_x[:, : h * k, : w * k].unflatten(2, (w, k)).unflatten(1, (h, k)).copy_(d.transpose(2, 3))
        return d_x.permute(0, 3, 1, 2)
    if k == H == W:
        return d.view(B, H, W, C).permute(0, 3, 1, 2)
    columns = d.new_zeros(B, h, k, W, C)
    for j in range(k):
        columns[:, :, :, j : j + w] += d[:, :, :, :, j].transpose(2, 3)
    d_x = d.new_zeros(B, H, W, C)
    for i in range(k):
        d_x[:, i : i + h] += columns[:, :, i]
    return d_x.permute(0, 3, 1, 2)


def add_pool_gradient(d_x: Tensor, d_short: Tensor, k: int, s: int) -> None:
    """Adds the gradient of an average pool of windows k = m s, in place: blocks of s x s pixels share it, and it is a pool itself."""
    m = k // s
    g = F.avg_pool2d(F.pad(d_short, [m - 1] * 4), m, 1, divisor_override=k * k)
    h, w = g.shape[2:]
    blocks = d_x[:, :, : h * s, : w * s].unflatten(3, (w, s)).unflatten(2, (h, s))
    blocks += g[:, :, :, None, :, None]
