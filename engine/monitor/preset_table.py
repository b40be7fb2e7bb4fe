"""The presets as a ladder: what each costs, what it is expected to reach, and who says so."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from amdim.engine.monitor import flops
from amdim.engine.presets import PRESETS
from amdim.model.encoder import Encoder, EncoderConfig

STATE = 18  # bytes a weight: itself, its gradient and Adam's two moments in float32, and autocast's copy in 16 bits
VIEWS, PROBED = 2, 4  # PROBED: images of the batch that activations are counted with

# Top-1 of a linear probe on the preset's own data set, and who says so; what was measured is in docs/results.md.
EXPECTED = {
    "demo": "57.8 % of shapes, measured",
    "parts": "49.4 % of shapes, measured; IoU of its parts 0.53",
    "fashion-mnist": "88.9 %, MLP 91.4 %, measured",
    "cifar10-large": "91.2 %, the paper's, by wizwand.com; probe not named",
    "stl10": "93.8 %, the paper's, by sotaverified.org; probe not named",
    "imagenet-small": "62.7 %, the author in amdim-public#14",
    "imagenet-medium": "67 % or more, README of amdim-public",
    "imagenet-large": "68.1 %, README of amdim-public",
}
UNKNOWN = "no figure known"
# Images a second in training, measured or computed for one A100 at REACHED of its peak, as in
# docs/scaling.md (encoders as small as the CPU's would wait for their launches there, not for products).
MEASURED = {
    "demo": "182, two CPU cores, float32, measured",
    "fashion-mnist": "155, two CPU cores, float32, measured",
    "parts": "158, two CPU cores, float32, one step",  # by train.py --preset NAME --data data/shapes --dry-run
    "laptop32": "189, two CPU cores, float32, one step",
    "laptop64": "68, two CPU cores, float32, one step",
    "laptop128": "56, two CPU cores, float32, one step",
    "imagenet-small": "2,913, one H200, bfloat16, measured",  # python -m bench.gpu_training: docs/loader.md
}
A100 = 1e12 * dict(flops.PEAKS)["A100"]
REACHED = 0.35
HEADINGS = (
    "preset",
    "encoder",
    "recipe",
    "batch x epochs",
    "lr",
    "weights",
    "memory: a GPU + an image",
    "images/s",
    "linear probe",
    "for",
)
RULE = (
    "Rates are for the batch beside them. For another batch N, the square root's rule for Adam, --lr = lr x sqrt(N / batch) "
    "(arXiv 2205.10287), is where to begin; --batch-size alone leaves the rate as it is."
)
MEMORY = (
    "Memory is computed, not measured: the encoder's weights with gradients and Adam's moments, and for each image of a GPU's "
    "share of the batch the maps of two views, in 16 bits. Scores, probes and the libraries' own workspace come on top. "
    "--checkpoint-activations keeps fewer maps; --ema adds 4 bytes a weight."
)
SPEED = (
    f"Images/s where no machine is named are computed, for one A100 at {REACHED:.0%} of its peak in bfloat16 (docs/scaling.md); "
    "on a GPU one preset alone was measured."
)


class Cost(NamedTuple):
    """``weights`` of an encoder; ``state``, bytes for training them; ``an_image``, bytes that an image's two views keep."""

    weights: int
    state: int
    an_image: float


def cost(config: EncoderConfig) -> Cost:
    """What training takes in memory, from the shapes alone: maps are counted in float32, and halved for 16 bits."""
    kept: list[Tensor] = []
    with torch.device("meta"):
        encoder = Encoder(config)
        with keeping(kept):
            encoder(torch.empty(PROBED, 3, config.size, config.size))
    weights = sum(weight.numel() for weight in encoder.parameters())
    return Cost(weights, STATE * weights, VIEWS / PROBED * maps(encoder, kept) / 2)


def keeping(kept: list[Tensor]) -> saved_tensors_hooks:
    """Within it, what autograd keeps for the backward pass is added to ``kept``."""

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    return saved_tensors_hooks(keep, lambda tensor: tensor)


def maps(encoder: nn.Module, kept: list[Tensor]) -> int:
    """Bytes of the tensors kept for the backward pass, each once, that are no weights."""
    own = {weight.untyped_storage()._cdata for weight in encoder.parameters()}
    found = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in kept}
    return sum(size for storage, size in found.items() if storage not in own)


def rows() -> list[tuple[str, ...]]:
    """A row a preset, under ``HEADINGS``."""
    found: list[tuple[str, ...]] = []
    for name, preset in PRESETS.items():
        net, price = preset.encoder, cost(preset.encoder)
        sizes = f"{net.size} px w{net.width} R{net.embedding} d{net.depth}"
        memory = f"{price.state / 2**30:.2f} GiB + {price.an_image / 2**20:.1f} MiB"
        length = f"{preset.batch} x {preset.epochs:g}"
        words = EXPECTED.get(name, UNKNOWN)
        rate, weights = f"{preset.lr:g}", f"{price.weights / 1e6:.1f} M"
        found.append((name, sizes, preset.recipe, length, rate, weights, memory, speed(name), words, preset.note))
    return found


def speed(name: str) -> str:
    """Images a second of a preset, measured or computed."""
    return MEASURED.get(name) or f"{REACHED * A100 / flops.operations(PRESETS[name].encoder):,.0f}"
