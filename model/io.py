"""An encoder out of a file, in one line and without the rest of this repository.

from model import load_encoder

encoder = load_encoder("encoder.safetensors")               # what `eval.py --export` wrote
encoder = load_encoder("runs/NAME/checkpoints/step-500")    # or a run's checkpoint
"""

from __future__ import annotations

import json
import os
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from amdim.model.encoder import Encoder, EncoderConfig

PREFIX = "encoder."  # of the encoder's weights among those of a checkpoint


def load_encoder(path: str | os.PathLike[str], last_weights: bool = False) -> Encoder:
    """The encoder of an exported ``FILE.safetensors``, or of a checkpoint's directory: float32, on the CPU, in evaluation mode.

    It takes images (B, 3, S, S), normalised as ``FILE.safetensors.json`` or the checkpoint's ``views`` say, and returns
    ``Features``; ``encoder.represent(images)`` is r1 alone, (B, R).

    Args:
        path: the file, whose configuration lies beside it, or the directory.
        last_weights: of a checkpoint that holds a moving average of its weights, the last ones and not the average.

    Raises:
        OSError: something is not there.
        ValueError: what is there is no encoder; the text names it and says why.
    """
    path = Path(path)
    config, weights = from_checkpoint(path, last_weights) if path.is_dir() else from_export(path)
    try:
        with torch.device("meta"):  # shapes alone: no second copy of the weights, and none drawn at random
            encoder = Encoder(EncoderConfig(**config))
        encoder.load_state_dict(weights, assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its weights are not those that its configuration describes ({first_line(error)})") from error
    return encoder.eval()


def from_export(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields of the encoder's configuration, and its weights."""
    return fields(file.with_name(f"{file.name}.json"), "encoder"), read_weights(file)


def from_checkpoint(directory: Path, last_weights: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not (directory / "model.safetensors").exists():
        raise ValueError(f"{directory}: is no checkpoint; give a directory like runs/NAME/checkpoints/step-500")
    weights = read_weights(directory / "model.safetensors")
    if not last_weights:
        weights |= average(directory / "trainer.pt")
    own = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items() if name.startswith(PREFIX)}
    return fields(directory / "config.json", "settings", "encoder"), own


def average(file: Path) -> dict[str, Tensor]:
    """The moving average of a checkpoint's weights, if it has one."""
    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True, mmap=True).get("average", {}))
    except OSError:
        raise
    except Exception as error:  # damaged bytes make the unpickler fail in any way
        raise ValueError(f"{file}: cannot be read ({first_line(error)})") from error


def fields(file: Path, *names: str) -> dict[str, Any]:
    try:
        return dict(reduce(getitem, names, json.loads(file.read_text())))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: does not describe an encoder") from error


def read_weights(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: is no whole safetensors file ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
