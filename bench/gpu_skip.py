"""What the checks of a GPU share: what they need, and how they say that they cannot run."""

from __future__ import annotations

import importlib


class Skip(Exception):
    """A check cannot run here; its text says why."""


def need(*modules: str) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise Skip(f"cannot import {name} ({error})") from error


def need_gpu() -> None:
    need("torch")
    import torch

    if not torch.cuda.is_available():
        raise Skip("torch sees no CUDA device")
