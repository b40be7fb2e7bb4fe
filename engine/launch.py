"""Which device a process trains on: the one place that knows of ranks."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from errors import UsageError


class Place(NamedTuple):
    """This process among its peers, and its device."""

    rank: int
    world: int
    device: torch.device


def place(gpus: int | None) -> Place:
    """The place of this process for ``--gpus``: None takes a GPU if there is one.

    Raises:
        UsageError: for more GPUs than there are.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = min(found, 1) if gpus is None else gpus
    if wanted < 0:
        raise UsageError(f"--gpus {wanted}: give 0 for the CPU, or a number of GPUs")
    if wanted > found:
        go_on = "go on with --gpus 0, which trains on the CPU" if found == 0 else f"go on with --gpus {found}"
        raise UsageError(f"--gpus {wanted}: this machine has {found or 'no'} CUDA GPU{'s' * (found != 1)}; {go_on}")
    if wanted > 1:
        raise UsageError(f"--gpus {wanted}: training runs on one GPU so far; go on with --gpus 1")
    return Place(0, 1, torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if wanted else torch.device("cpu"))
