"""Checkpoints: ``step-<n>/`` with ``model.safetensors``, ``trainer.pt`` and ``config.json``, whole or absent.

Written to a temporary directory, flushed and renamed. The latest is found by its number and never trusted: one that does not load
gives way to the one before it. ``trainer.pt`` is loaded with ``weights_only=True``, so that no file can run code.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from errors import UserError, warn

DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError)


TRAINER = {"step"}  # what every reader needs of a checkpoint
CONFIG = {"data", "settings", "seed"}


class Checkpoint(NamedTuple):
    """What a directory holds: weights by plain module names, the trainer's state, the run's configuration."""

    path: Path
    weights: dict[str, Tensor]
    trainer: dict[str, Any]
    config: dict[str, Any]


def save(
    root: Path, step: int, weights: dict[str, Tensor], trainer: dict[str, Any], config: dict[str, Any], keep: int = 2
) -> Path:
    """Writes ``root/step-<step>`` and removes all but the last ``keep``."""
    final = root / f"step-{step}"
    temporary = root / f".tmp-step-{step}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, temporary / "model.safetensors")
        torch.save(trainer, temporary / "trainer.pt")
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"{final}: cannot be written ({first_line(error)}); the checkpoint before it is good") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush(root)
    for old in steps(root)[keep:]:
        shutil.rmtree(old)
    return final


def flush(path: Path) -> None:
    """Waits until a file or directory is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def forget_after(root: Path, step: int) -> None:
    """Removes checkpoints of later steps: a run that goes on from ``step`` leaves them behind."""
    for path in steps(root):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)


def steps(root: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = [path for path in root.glob("step-*") if re.fullmatch(r"step-\d+", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        one of DAMAGE: something is missing or broken.
    """
    weights = load_file(path / "model.safetensors")
    trainer = torch.load(path / "trainer.pt", map_location="cpu", weights_only=True)
    config = json.loads((path / "config.json").read_text())
    for name, part, keys in (("trainer.pt", trainer, TRAINER), ("config.json", config, CONFIG)):
        if not isinstance(part, dict) or not part.keys() >= keys:
            raise ValueError(f"{name} is not what was saved")
    return Checkpoint(path, weights, trainer, config)


def latest(root: Path) -> Checkpoint | None:
    """The newest checkpoint that loads, or None; warns of each that does not."""
    return next(loadable(root), None)


def loadable(root: Path) -> Iterator[Checkpoint]:
    for path in steps(root):
        try:
            checkpoint = load(path)
        except DAMAGE as error:
            warn(f"{path} is damaged ({first_line(error)}): passed over for the one before it, if there is one")
            continue
        yield checkpoint
