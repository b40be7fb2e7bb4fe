"""Training presets: every number a run needs, under one name.

The paper's rows follow github.com/Philip-Bachman/amdim-public (Adam at 2e-4 with betas 0.8 and 0.999, milestones at 0.6 and 0.9
of 50 epochs on ImageNet); those for two CPU cores were chosen on a part of the training
split that the probe was not shown (docs/recipes.md, which also says what of fashion-mnist's was confirmed on its test images).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from amdim.errors import UsageError
from amdim.model.encoder import EncoderConfig
from amdim.model.mixture import ALPHA
from amdim.model.streaming_nce import MAX_CLIP

LIMITS: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (("batch",), lambda value: value >= 2, "at least 2"),
    (("lr", "clip", "mixture_alpha"), lambda value: 0 < value < math.inf, "positive and finite"),
    (
        ("epochs", "warmup", "weight_decay", "grad_clip", "mixture"),
        lambda value: 0 <= value < math.inf,
        "zero or more",
    ),
    (("beta1", "beta2", "ema"), lambda value: 0 <= value < 1, "in [0, 1)"),
    (("milestones",), lambda values: all(0 < value < 1 for value in values), "fractions of the run"),
)


@dataclass(frozen=True)
class Preset:
    """One row.

    Args:
        encoder: the network.
        recipe: name of the views' recipe.
        batch: global batch N.
        epochs: length of the run.
        lr: peak learning rate, for this batch.
        warmup: updates over which the rate rises linearly.
        schedule: "cosine" to zero, or "step": times 0.2 at each of ``milestones`` (fractions of the run).
        optimizer: whose steps; rates are Adam's unless they are given.
        weight_decay: Adam and LARS add it to the gradient (L2, as in the original), AdamW and LAMB to the step.
        decay_biases: whether biases and normalisation decay too, as in the original.
        beta1, beta2: Adam's, AdamW's and LAMB's; beta1 is LARS's momentum.
        grad_clip: longest gradient, of all weights together; 0 leaves it as it is.
        ema: decay of the moving average of the weights; 0 keeps none.
        clip: c of the objective's soft clip.
        mixture: K mixture features; 0 leaves them out.
        mixture_mode: whether their term joins the others or replaces r1 to r7.
        mixture_alpha: weight of the entropy of their posterior.
    """

    encoder: EncoderConfig
    recipe: str
    batch: int = 480
    epochs: float = 50
    lr: float = 2e-4
    warmup: int = 500
    schedule: Literal["cosine", "step"] = "step"
    milestones: tuple[float, ...] = (0.6, 0.9)
    optimizer: Literal["adam", "adamw", "lamb", "lars"] = "adam"
    weight_decay: float = 1e-5
    decay_biases: bool = True
    beta1: float = 0.8
    beta2: float = 0.999
    grad_clip: float = 0.0
    ema: float = 0.0
    clip: float = 20.0
    mixture: int = 0
    mixture_mode: Literal["join", "replace"] = "replace"
    mixture_alpha: float = ALPHA
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for names, good, what in LIMITS:
            for name in names:
                if not good(getattr(self, name)):
                    raise ValueError(f"{name} {getattr(self, name)}: is not {what}")


OWN_RATE = {"lamb": "higher; give one, as in --lr 0.03", "lars": "a thousand times as high; give one, as in --lr 2"}
SMALL_IMAGES = (5 / 6, 14 / 15)  # 250 and 280 of 300 epochs

IMAGENET_SMALL = Preset(EncoderConfig(128, 192, 1536, 8), "imagenet128", note="the paper's small encoder")
CIFAR10_LARGE = Preset(
    EncoderConfig(32, 256, 2048, 10), "cifar32", epochs=300, milestones=SMALL_IMAGES, note="the paper's large encoder"
)
LAPTOP = Preset(
    EncoderConfig(128, 32, 256, 2, use_bn=True), "imagenet128", 64, 10, 7e-4, 100, "cosine", note="photographs without a GPU"
)

DEMO = replace(
    LAPTOP,
    encoder=EncoderConfig(32, 32, 256, 2, use_bn=True),
    recipe="shapes32",
    batch=128,
    epochs=5,
    lr=2e-3,
    note="shapes on two CPU cores, minutes",
)

PRESETS = {
    "demo": DEMO,
    "parts": replace(DEMO, recipe="shapes32-fused", mixture=2, note="shapes and a segmentation of them: docs/mixtures.md"),
    "fashion-mnist": replace(
        DEMO,
        encoder=EncoderConfig(32, 32, 512, 2, use_bn=True),
        recipe="gray32",
        batch=64,
        epochs=2.7,
        lr=1.4e-3,
        warmup=200,
        note="fashion-mnist on two CPU cores",
    ),
    "cifar10-small": replace(CIFAR10_LARGE, encoder=EncoderConfig(32, 128, 1024, 10), note="half as wide, for one small GPU"),
    "cifar10-large": CIFAR10_LARGE,
    "stl10": Preset(
        EncoderConfig(64, 192, 1536, 8), "stl64", epochs=300, milestones=SMALL_IMAGES, note="the paper's small encoder"
    ),
    "laptop32": replace(DEMO, recipe="cifar32", epochs=10, note="cifar10 and cifar100 without a GPU"),
    "laptop64": replace(LAPTOP, encoder=EncoderConfig(64, 32, 256, 2, use_bn=True), recipe="stl64", note="stl10 without a GPU"),
    "laptop128": LAPTOP,
    "imagenet-small": IMAGENET_SMALL,
    "imagenet-medium": replace(IMAGENET_SMALL, encoder=EncoderConfig(128, 256, 2048, 10), note="the paper's medium encoder"),
    "imagenet-large": replace(IMAGENET_SMALL, encoder=EncoderConfig(128, 320, 2560, 10), note="the paper's large encoder"),
}

BY_DATA = {
    "shapes": "demo",
    "fashion-mnist": "fashion-mnist",
    "cifar10": "cifar10-large",
    "cifar100": "cifar10-large",
    "stl10": "stl10",
}
WITHOUT_GPU = {"cifar10": "laptop32", "cifar100": "laptop32", "stl10": "laptop64"}


def configure(preset: str, samples: int, changes: dict[str, Any], of_file: dict[str, Any] | None = None) -> Preset:
    """The preset with the changes of a file of settings, and over them the command line's.

    A preset's batch is cut to fit a small data set; a batch that was asked for is taken at its word.

    Raises:
        UsageError: there is no such preset, or a value is out of its range; names it.
    """
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: there is no such preset; there are {', '.join(PRESETS)}")
    settings = PRESETS[preset]
    idle = [name for name in ("mixture_mode", "mixture_alpha") if changes.get(name) is not None]
    asked = (of_file or {}) | {name: value for name, value in changes.items() if value is not None}
    if idle and not asked.get("mixture", settings.mixture):
        raise UsageError(f"--{idle[0].replace('_', '-')}: is of mixture features; give their number, as in --mixture 2")
    if asked.get("clip", settings.clip) > MAX_CLIP:  # the original could; a run of its weights is probed and not trained
        raise UsageError(
            f"preset {preset}: clip {asked['clip']:g} is more than {MAX_CLIP:g}, beyond which float32 overflows; give less"
        )
    optimizer = asked.get("optimizer", settings.optimizer)
    if optimizer in OWN_RATE and optimizer != settings.optimizer and "lr" not in asked:
        raise UsageError(f"--optimizer {optimizer}: presets' rates are Adam's, and its own are {OWN_RATE[optimizer]}")
    try:
        encoder = replace(settings.encoder, **asked.pop("encoder", {}))
        return replace(settings, **{"batch": max(2, min(settings.batch, samples // 2))} | asked | {"encoder": encoder})
    except ValueError as error:
        raise UsageError(f"{error} (a field of preset {preset} that was changed)") from error


def with_views(settings: Preset, recipe: str, size: int, asked: int | None = None) -> Preset:
    """The preset with the views of a recipe, of side ``size``; its encoder becomes the one for that size.

    Raises:
        UsageError: a file of settings ``asked`` for an encoder of another size.
    """
    if asked not in (None, size):
        raise UsageError(
            f"[encoder] size = {asked}: views of recipe {recipe} have {size} pixels; set size in [views], or --recipe"
        )
    return replace(settings, recipe=recipe, encoder=replace(settings.encoder, size=size))


def default_preset(data: str, gpu: bool) -> str:
    """The preset of a data set by its name; photographs get the paper's small encoder, or without a GPU a laptop's."""
    return (BY_DATA if gpu else BY_DATA | WITHOUT_GPU).get(data, "imagenet-small" if gpu else "laptop128")
