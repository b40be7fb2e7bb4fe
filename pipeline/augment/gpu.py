"""The end of a view on a GPU: decoded and resampled by DALI, its operations and colours in Triton.

Shape letters: N views, S image side.
"""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._triton import has_triton_package

from amdim.pipeline.augment.recipes import Recipe
from amdim.pipeline.augment.view_params import ViewParams

OLDEST = (8, 0)  # Ampere: what the kernels are compiled for in the tests


class Tables(NamedTuple):
    """What kernels take of a view's draws, in pinned memory where a GPU is to have it.

    colours: (N, columns) float32, of ``colours_triton.table``; ``color`` is the recipe's.
    operations: of ``operations_triton.tables``, where the recipe has a policy.
    """

    color: str
    colours: Tensor
    operations: tuple[Tensor, Tensor] | None


def is_available(device: torch.device) -> bool:
    """Whether Triton's kernels can end views on a device: on a GPU, with the C compiler that Triton's first launch wants.

    Where they cannot, DALI's graph does all of it: the same views but for rounding, in several times the time.
    """
    if device.type != "cuda" or not has_triton_package() or torch.cuda.get_device_capability(device) < OLDEST:
        return False
    return bool(os.environ.get("CC") or shutil.which("clang") or shutil.which("gcc"))  # as model.streaming_nce asks


def tables(recipe: Recipe, draws: ViewParams, device: torch.device) -> Tables:
    """What ``painted`` takes of the draws of one view of N images."""
    from amdim.pipeline.augment import (  # only here: a machine without CUDA need not have triton
        autoaugment_triton,
        color_jitter_triton,
    )

    def pinned(table: np.ndarray) -> Tensor:
        return torch.from_numpy(table).pin_memory() if device.type == "cuda" else torch.from_numpy(table)

    operations = None
    if recipe.policy != "none":
        numbers, factors = autoaugment_triton.tables(draws.policy, recipe.size)
        operations = pinned(numbers), pinned(factors)
    return Tables(recipe.color, pinned(color_jitter_triton.table(recipe, draws)), operations)


def augment_on_gpu(levels: Tensor, drawn: Tables) -> Tensor:
    """Resampled levels (N, S, S, 3) uint8 as views (N, 3, S, S) float16, channels-last; nothing waits for the GPU."""
    from amdim.pipeline.augment import autoaugment_triton, color_jitter_triton

    if drawn.operations:
        numbers, factors = (table.to(levels.device, non_blocking=True) for table in drawn.operations)
        levels = autoaugment_triton.operated(levels, numbers, factors)
    return color_jitter_triton.coloured(levels, drawn.colours.to(levels.device, non_blocking=True), drawn.color)
