"""What is probed: the trained encoder, and what it has to beat: the same encoder before training, and the image's own pixels."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor

from amdim.engine import runs
from amdim.engine.checkpoint import Checkpoint
from amdim.engine.precision import Precision
from amdim.errors import UserError
from amdim.evaluation.features import PIXELS, Function, pixels, represent
from amdim.model import Encoder

ENCODER, RANDOM, RAW = "encoder", "random_init", "raw_pixels"
BASELINES = (RANDOM, RAW)


class FeatureExtractor(NamedTuple):
    """A function from images (B, 3, S, S) to features (B, ``width``); ``identity`` is what decides it, ``source`` for people."""

    name: str
    function: Function
    width: int
    identity: str
    source: str = ""


def contender(name: str, saved: Checkpoint, precision: Precision, device: torch.device) -> FeatureExtractor:
    if name == RAW:
        return FeatureExtractor(
            name, pixels, 3 * min(PIXELS, runs.encoder_config(saved.config).size) ** 2, identity(name, saved), RAW
        )
    encoder = trained(saved) if name == ENCODER else untrained(saved)
    function, source = represent(encoder, precision, device), str(saved.path) if name == ENCODER else "random initialisation"
    return FeatureExtractor(name, function, encoder.config.embedding, f"{identity(name, saved)} {precision.dtype}", source)


def identity(name: str, saved: Checkpoint) -> str:
    """A text that is the same for the same features of the same images."""
    if name == RAW:
        return f"pixels {PIXELS}"
    if name == RANDOM:
        return f"{asdict(runs.encoder_config(saved.config))} seed {saved.config['seed']} torch {torch.__version__}"
    return digest(encoder_weights(saved))


def digest(weights: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in weights.items():
        found.update(name.encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def weights_of(saved: Checkpoint) -> str:
    """A short name for the encoder's weights, by which a result is known to be theirs."""
    return digest(encoder_weights(saved))[:16]


def trained(saved: Checkpoint) -> Encoder:
    """
    Raises:
        UserError: the weights are of another architecture than the configuration beside them.
    """
    encoder = untrained(saved)
    try:
        encoder.load_state_dict(encoder_weights(saved))
    except RuntimeError as error:
        raise UserError(
            f"{saved.path}: its weights are not those of the encoder in its config.json; take another checkpoint"
        ) from error
    return encoder


def encoder_weights(saved: Checkpoint) -> dict[str, Tensor]:
    prefix = "encoder."
    return {name.removeprefix(prefix): weight for name, weight in saved.weights.items() if name.startswith(prefix)}


def untrained(saved: Checkpoint) -> Encoder:
    """The encoder as it was before training: same configuration, same seed."""
    torch.manual_seed(saved.config["seed"])
    return Encoder(runs.encoder_config(saved.config))
