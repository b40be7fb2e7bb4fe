"""The primitive under the objective: every source scored against every target, streamed, with exact gradients.

Scores are made tile by tile and made again in the backward pass, so memory is O(B L) and not O(B^2 L). Everything is relative to
the largest score that the soft clip s = c tanh(x / c) allows: with q = sigmoid(-2x / c),

    u = s - c = -2c q        du/dx = 4 q (1 - q)

which loses no digits where s comes near c, and needs no running maximum. Scores and sums are float32 (float64 for float64
inputs). The two products of the backward pass are in the inputs' own type, as autocast's would be.

Shape letters: M sources, B images, L locations, R embedding width.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from amdim.model import nce_torch

MAX_CLIP = 35.0  # beyond it, N e^{-u} can overflow float32
OLDEST = (8, 0)  # Ampere: what the Triton kernels are compiled for in the tests
IMPLEMENTATIONS = ("auto", "torch", "triton")


class NceSums(NamedTuple):
    """Per source: N (M,) the sum of e^{s-c} over negatives, positives s - c (M, L); and the sum of all squared raw scores ()."""

    negatives: Tensor
    positives: Tensor
    sum_of_squares: Tensor


def nce_sums(sources: Tensor, owner: Tensor, targets: Tensor, clip: float, implementation: str = "auto") -> NceSums:
    """Scores every source against every target; any upstream gradients are welcome, once.

    Args:
        sources: (M, R).
        owner: (M,) int64, the image of B that a source belongs to: its targets are the positives, all others negatives. A source
            of an image outside [0, B), as other ranks have, finds negatives only, and its positives are 0.
        targets: (B, L, R).
        clip: c of the soft clip, in (0, 35].
        implementation: "torch", "triton", or "auto" for what ``chosen`` says.

    Raises:
        ValueError: for another clip or implementation, or tensors on different devices.
    """
    if not 0 < clip <= MAX_CLIP:
        raise ValueError(f"clip {clip}: must lie in (0, {MAX_CLIP:g}], as float32 overflows beyond")
    if not sources.device == owner.device == targets.device:
        raise ValueError(f"sources on {sources.device}, owner on {owner.device}, targets on {targets.device}: give one device")
    dtype = torch.promote_types(sources.dtype, targets.dtype)
    form = _form(implementation, targets.device, dtype)
    return NceSums(*_Streamed.apply(sources.to(dtype), owner, targets.to(dtype).contiguous(), clip, form))


def chosen(device: torch.device) -> tuple[str, str]:
    """What "auto" takes on a device, and why."""
    if device.type != "cuda":
        return "torch", f"Triton's kernels are for CUDA, this is {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "torch", "triton is not installed"
    if torch.cuda.get_device_capability(device) < OLDEST:
        return "torch", "Triton's kernels were made for compute capability 8.0 and later"
    if not c_compiler():
        return "torch", "Triton's first launch wants a C compiler, and there is none (gcc or clang, or CC)"
    return "triton", "score tile and epilogue in one kernel"


def c_compiler() -> str | None:
    """What Triton builds its launchers with, as it looks for it; without one, its first launch is an error."""
    return os.environ.get("CC") or shutil.which("clang") or shutil.which("gcc")


def _form(implementation: str, device: torch.device, dtype: torch.dtype) -> ModuleType:
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation {implementation!r}: give one of {', '.join(IMPLEMENTATIONS)}")
    if implementation == "auto":  # Triton's kernels have no float64
        implementation = "torch" if dtype is torch.float64 else chosen(device)[0]
    if implementation == "torch":
        return nce_torch
    return importlib.import_module("amdim.model.nce_triton")  # only here: a machine without CUDA need not have triton


class _Streamed(torch.autograd.Function):
    """``form`` computes scores and their gradients; what a gradient of scores means for vectors is the same for all forms."""

    @staticmethod
    def forward(
        ctx: Any, sources: Tensor, owner: Tensor, targets: Tensor, clip: float, form: ModuleType
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(sources, owner, targets)
        ctx.clip, ctx.form = clip, form
        with torch.autocast(sources.device.type, enabled=False):
            sums: tuple[Tensor, Tensor, Tensor] = form.sums(sources, owner, targets, clip)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        sources, owner, targets = ctx.saved_tensors
        B, L, R = targets.shape
        d_sources = sources.new_zeros(sources.shape, dtype=torch.promote_types(sources.dtype, torch.float32))
        d_targets = torch.empty_like(targets)
        tile = ctx.form.images_a_tile(len(sources), L)
        with torch.autocast(sources.device.type, enabled=False):
            for first in range(0, B, tile):
                images = slice(first, min(first + tile, B))
                d_products = ctx.form.score_gradients(sources, owner, targets, images, ctx.clip, *upstream)
                d_sources += d_products @ targets[images].view(-1, R)
                torch.mm(d_products.T, sources, out=d_targets[images].view(-1, R))
        return d_sources.to(sources.dtype), None, d_targets, None, None
