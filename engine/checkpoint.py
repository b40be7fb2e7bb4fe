"""Checkpoints: ``step-<n>/`` with ``model.safetensors``, ``trainer.pt``, ``config.json``, ``checksums.json``.

They are whole or absent: written to a temporary directory, flushed and renamed. The latest is found by its number and never
trusted: one that does not load, or whose bytes have changed, gives way to the one before it. ``trainer.pt`` is loaded with
``weights_only=True``, so that no file can run code.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from itertools import chain, count
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from amdim.engine.json_file import as_json
from amdim.engine.tensors import crc, summed, write_tensors
from amdim.errors import UserError, first_line, is_shortage, warn

DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError)
FILES = ("model.safetensors", "trainer.pt", "config.json")
CHECKSUMS = "checksums.json"  # the CRC-32 of each
TEMPORARY = ".tmp-step-"  # what a checkpoint is called until it is whole
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
    """Writes ``root/step-<step>`` and removes all but the last ``keep``.

    Raises:
        UserError: it cannot be written; nothing of it is left.
    """
    final = root / f"step-{step}"
    temporary = root / f"{TEMPORARY}{step}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write(temporary, weights, trainer, config)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        flush(root)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError | RuntimeError):
            raise
        left = "the checkpoint before it is good" if steps(root) else "nothing of this run is saved yet"
        raise UserError(f"{final}: cannot be written ({first_line(error)}); {left}") from error
    for old in steps(root)[keep:]:
        remove(old)
    return final


def write(directory: Path, weights: dict[str, Tensor], trainer: dict[str, Any], config: dict[str, Any]) -> None:
    """Writes the four files and waits until they are on the disk."""
    with summed(directory / "model.safetensors") as model:
        write_tensors(weights, model)
    with summed(directory / "trainer.pt") as state:
        torch.save(trainer, cast("IO[bytes]", state))
    with summed(directory / "config.json") as fields:
        fields.write(as_json(config))
    with summed(directory / CHECKSUMS) as sums:
        sums.write(as_json({name: file.crc for name, file in zip(FILES, (model, state, fields), strict=True)}))
    flush(directory)


def flush(path: Path) -> None:
    """Waits until a file or directory is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """What cannot be removed, as some network disks refuse while somebody reads it, is a warning: the others are good."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        warn(f"{path}: cannot be removed ({error.strerror or error})")


def forget_after(root: Path, step: int) -> None:
    """Puts aside checkpoints of later steps, which a run that goes on from ``step`` leaves behind; half-written ones are removed.

    Whole ones become ``left-step-<n>``: who went back by mistake has not lost them. Damaged ones become ``damaged-step-<n>``:
    nothing makes up for them if the one that served instead fails, too.
    """
    for path in steps(root):
        if int(path.name[5:]) > step:
            put_aside(path, "left" if whole(path) else "damaged")
    for path in root.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path)


def put_aside(path: Path, how: str) -> None:
    names = chain([f"{how}-{path.name}"], (f"{how}-{path.name}-{number}" for number in count(2)))
    aside = next(each for each in map(path.with_name, names) if not each.exists())
    path.rename(aside)
    if how == "left":
        warn(f"{path}: is of a later step than the run goes on from, and now called {aside.name}; remove it, or name it back")


def whole(path: Path) -> bool:
    """Whether it would load, as far as that can be told without its tensors in memory."""
    try:
        check_sums(path)
        torch.load(path / "trainer.pt", map_location="cpu", weights_only=True, mmap=True)
    except DAMAGE:
        return False
    return True


def steps(root: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = [path for path in root.glob("step-*") if re.fullmatch(r"step-\d+", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        one of DAMAGE: something is missing or broken.
    """
    check_sums(path)
    weights = load_file(path / "model.safetensors")
    trainer = torch.load(path / "trainer.pt", map_location="cpu", weights_only=True)
    config = json.loads((path / "config.json").read_text())
    for name, part, keys in (("trainer.pt", trainer, TRAINER), ("config.json", config, CONFIG)):
        if not isinstance(part, dict) or not part.keys() >= keys:
            raise ValueError(f"{name} is not what was saved")
    return Checkpoint(path, weights, trainer, config)


def is_transient(error: BaseException) -> bool:
    """Whether an error says nothing of the file: a disk that does not answer, permissions, memory."""
    absent = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    return (isinstance(error, OSError) and error.errno is not None and not absent) or is_shortage(error)


def check_sums(path: Path) -> None:
    """That every file holds what was written: neither format would notice a flipped bit."""
    recorded = json.loads((path / CHECKSUMS).read_text())
    if not isinstance(recorded, dict):
        raise ValueError(f"{CHECKSUMS} is not what was saved")
    if changed := [name for name in FILES if crc(path / name) != recorded.get(name)]:
        raise ValueError(f"the bytes of {' and '.join(changed)} are not those that were saved")


def latest(root: Path) -> Checkpoint | None:
    """The newest checkpoint that loads, or None; a warning names each that does not and the one that serves instead.

    Raises:
        UserError: one may be good, but the disk or this machine's memory fails; an older one would cost work for nothing.
    """
    damaged = []
    for path in steps(root):
        try:
            found = load(path)
        except DAMAGE as error:
            if is_transient(error):
                words = f"{path}: cannot be read now ({first_line(error)}); the same command tries again"
                raise UserError(f"{words}, and with {path.name} moved away goes on from the one before it") from error
            damaged.append(f"{path} is damaged ({first_line(error)})")
            continue
        for each in damaged:
            warn(f"{each}: {path} is used instead")
        return found
    for each in damaged:
        warn(f"{each}, and there is no good one before it")
    return None
