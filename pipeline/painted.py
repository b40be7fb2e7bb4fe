"""The end of a view on a GPU: decoded and resampled by DALI, its operations and colours in Triton.

Shape letters: N views, S image side.
"""

from __future__ import annotations

import os
import shutil

import numpy as np
import torch
from torch import Tensor
from torch.utils._triton import has_triton_package

from pipeline.draws import Draws
from pipeline.recipes import Recipe

OLDEST = (8, 0)  # Ampere: what the kernels are compiled for in the tests


def serves(device: torch.device) -> bool:
    """Whether Triton's kernels can end views on a device: on a GPU, with the C compiler that Triton's first launch wants.

    Where they cannot, DALI's graph does all of it: the same views, in several times the time.
    """
    if device.type != "cuda" or not has_triton_package() or torch.cuda.get_device_capability(device) < OLDEST:
        return False
    return bool(os.environ.get("CC") or shutil.which("clang") or shutil.which("gcc"))


def painted(levels: Tensor, recipe: Recipe, draws: Draws) -> Tensor:
    """Levels (N, S, S, 3) uint8, resampled, as views (N, 3, S, S) float16, channels-last; nothing waits for the GPU."""
    from pipeline import colours_triton, operations_triton  # only here: a machine without CUDA need not have triton

    if recipe.policy != "none":
        tables = operations_triton.tables(draws.policy, recipe.size)
        levels = operations_triton.operated(levels, *(send(table, levels.device) for table in tables))
    return colours_triton.coloured(levels, send(colours_triton.table(recipe, draws), levels.device), recipe.color)


def send(table: np.ndarray, device: torch.device) -> Tensor:
    """To the device without waiting for it, which takes pinned memory."""
    tensor = torch.from_numpy(table)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
