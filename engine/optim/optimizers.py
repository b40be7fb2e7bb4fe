"""Which optimizer moves the weights, which of them decay, and whose implementation serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from amdim.engine.optim import adam
from amdim.engine.optim.adam import OptimizerChoice
from amdim.engine.optim.lamb_lars import Lamb, Lars
from amdim.engine.presets import Preset
from amdim.errors import UsageError


def make(asked: str, model: nn.Module, preset: Preset, device: torch.device, scaled: bool = False) -> OptimizerChoice:
    """The preset's optimizer for all weights of ``model``.

    Args:
        asked: whose kernel for Adam and AdamW, one of ``adam.KERNELS``.
        model: on ``device``.
        preset: names the optimizer, its rates and its decay.
        device: this rank's.
        scaled: whether a GradScaler stands between, as with float16.

    Raises:
        UsageError: the kernel does not work here, or the optimizer has none to choose from.
    """
    if preset.optimizer in adam.NAMES:
        return adam.make(asked, groups(model, preset), preset, device)
    if asked != "torch":
        raise UsageError(f"--adam {asked}: chooses a kernel for Adam and AdamW; leave it out with --optimizer {preset.optimizer}")
    return OTHERS[preset.optimizer](groups(model, preset), preset, device, scaled)


def groups(model: nn.Module, preset: Preset) -> list[dict[str, Any]]:
    """All weights as one group, as the original has it; or biases and normalisation, which have one axis, without decay."""
    weights = list(model.parameters())
    if preset.decay_biases or not preset.weight_decay:
        return [{"params": weights}]
    alone = [weight for weight in weights if weight.ndim <= 1]
    return [{"params": [weight for weight in weights if weight.ndim > 1]}, {"params": alone, "weight_decay": 0.0}]


def lamb(weights: list[dict[str, Any]], preset: Preset, device: torch.device, scaled: bool) -> OptimizerChoice:
    """apex's where it works; else our own. What does not decay keeps Adam's step in both, unless nothing decays."""
    everywhere = not preset.weight_decay
    options: dict[str, Any] = {"lr": preset.lr, "betas": (preset.beta1, preset.beta2), "weight_decay": preset.weight_decay}
    if device.type != "cuda":
        return OptimizerChoice(Lamb(weights, everywhere=everywhere, **options), "LAMB", "our own", "apex's is CUDA's")
    if scaled:
        reason = "the host would wait for each scaled step of apex's"
        return OptimizerChoice(Lamb(weights, everywhere=everywhere, **options), "LAMB", "our own", reason)
    try:
        fused = adam.find_apex(device, "FusedLAMB")
    except UsageError as error:
        return OptimizerChoice(Lamb(weights, everywhere=everywhere, **options), "LAMB", "our own", adam.why_not(error.__cause__))
    options |= {"max_grad_norm": float("inf"), "use_nvlamb": everywhere, "eps": 1e-6}  # clipping is the trainer's
    return OptimizerChoice(fused(weights, **options), "LAMB", "apex's fused kernel", "it works here")


def lars(weights: list[dict[str, Any]], preset: Preset, _device: torch.device, _scaled: bool) -> OptimizerChoice:
    made = Lars(weights, preset.lr, preset.beta1, preset.weight_decay)
    return OptimizerChoice(made, "LARS", "our own", "neither torch nor apex's optimizers have it")


OTHERS: dict[str, Callable[[list[dict[str, Any]], Preset, torch.device, bool], OptimizerChoice]] = {"lamb": lamb, "lars": lars}
