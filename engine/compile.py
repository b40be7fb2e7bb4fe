"""Whether torch.compile takes the encoder, and why."""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

import torch
from torch.utils._triton import has_triton

from amdim.errors import UsageError
from amdim.model.streaming_nce import c_compiler


class CompileChoice(NamedTuple):
    """``on`` or not; ``reason`` is for the start-up table."""

    on: bool
    reason: str

    def apply(self, encoder: torch.nn.Module) -> None:
        """In place, so that the names of weights stay what they are."""
        if self.on:
            encoder.compile()


def choose(asked: str, device: torch.device, recompute: bool = False) -> CompileChoice:
    """What was asked for; for "auto", on for a GPU that can.

    Not on a CPU: the matrix products that serve there (``model.conv_matmul``) are faster than what the compiler makes of plain
    convolutions, and it takes a minute or two to make it (docs/step.md). Nor where activations are to be computed again
    (``recompute``): it chooses by itself what it keeps.

    Raises:
        UsageError: it was asked for, and what it needs is not here.
    """
    if asked not in ("auto", "on", "off"):
        raise UsageError(f"--compile {asked}: give auto, on or off")
    if recompute and asked == "on":
        raise UsageError("--compile on, --checkpoint-activations: the compiler chooses by itself what it keeps; give one of them")
    if recompute:
        return CompileChoice(False, "its activations are computed again")
    lacks = missing(device)
    if asked == "on" and lacks:
        raise UsageError(f"--compile on: there is no {lacks}; leave it out, or install one")
    if asked != "auto":
        return CompileChoice(asked == "on", "asked for")
    if device.type == "cpu":
        return CompileChoice(False, "on a CPU its own products are faster")
    return CompileChoice(not lacks, f"there is no {lacks}" if lacks else "on GPUs it fuses what stands between convolutions")


def missing(device: torch.device) -> str | None:
    """What the compiler would need here and does not find."""
    if device.type == "cuda":
        if not has_triton():
            return "Triton that works with this GPU"
        return None if c_compiler() else "C compiler (gcc or clang), which Triton's first launch wants"
    return None if shutil.which(os.environ.get("CXX", "g++")) else "C++ compiler (g++)"
