"""LAMB and LARS: steps whose length is relative to the weight's norm, tensor by tensor, for large batches.

LAMB is You et al. 2019 (arXiv 1904.00962), algorithm 2 with phi the identity; LARS is You, Gitman and Ginsburg 2017
(arXiv 1708.03888), algorithm 1. A tensor that does not decay, where others do, is stepped without the ratio, as in the authors'
code and apex's. Plain torch, a few small operations a tensor; nothing waits for a GPU.

A float16 step whose gradient overflowed is skipped on the device: ``GradScaler`` leaves ``found_inf`` with an optimizer that says
``_step_supports_amp_scaling``. Gradients must be unscaled before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

TRUST = 1e-3  # eta of LARS, the paper's


class Layerwise(torch.optim.Optimizer, ABC):
    """What the two have in common: a pass over weights, and steps that are skipped."""

    _step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("a closure is not supported")
        skip = getattr(self, "found_inf", None)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.move(weight, weight.grad, group, None if skip is None else skip.bool())

    @abstractmethod
    def move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any], skip: Tensor | None) -> None:
        """One weight's step, which nothing comes of where ``skip`` is true: what each of the two has of its own."""


class Lamb(Layerwise):
    """Adam's direction plus decoupled decay, as long as the weight is times ``lr``.

    Args:
        params: weights or groups of them.
        lr: length of a step relative to the weight's.
        betas: Adam's.
        eps: Adam's; apex's default for LAMB.
        weight_decay: added to the direction.
        everywhere: whether what does not decay is scaled too.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-6,
        everywhere: bool = False,
    ) -> None:
        # capturable: counts of steps lie with the weights, also after a checkpoint was loaded.
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "capturable": True}
        super().__init__(params, options | {"everywhere": everywhere})

    def move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any], skip: Tensor | None) -> None:
        state, (beta1, beta2) = self.state[weight], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        step = state["step"] + 1
        first = state["exp_avg"].lerp(gradient, 1 - beta1)
        second = beta2 * state["exp_avg_sq"] + (1 - beta2) * gradient.square()
        corrections = [1 - beta ** step.double() for beta in (beta1, beta2)]  # near 1 - beta float32 would lose digits
        direction = (first / corrections[0]) / ((second / corrections[1]).sqrt() + group["eps"])
        direction = direction + group["weight_decay"] * weight
        scale: Tensor | float = 1.0
        if group["weight_decay"] or group["everywhere"]:
            scale = ratio(weight.norm(), direction.norm())
        moved = weight - group["lr"] * scale * direction
        for old, new in (
            (state["step"], step),
            (state["exp_avg"], first),
            (state["exp_avg_sq"], second),
            (weight, moved),
        ):
            commit(old, new, skip)


class Lars(Layerwise):
    """Momentum, of gradients scaled to ``TRUST`` times the weight's norm.

    Args:
        params: weights or groups of them.
        lr: the paper's global rate; far above Adam's.
        momentum: of the scaled gradients.
        weight_decay: L2, added to the gradient.
    """

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, options | {"decays": bool(weight_decay)})

    def move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any], skip: Tensor | None) -> None:
        state, decay = self.state[weight], group["weight_decay"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        scale: Tensor | float = 1.0
        if decay or not group["decays"]:
            size = weight.norm()
            scale = ratio(TRUST * size, gradient.norm() + decay * size)
        velocity = group["momentum"] * state["momentum_buffer"] + group["lr"] * scale * (gradient + decay * weight)
        moved = weight - velocity
        commit(state["momentum_buffer"], velocity, skip)
        commit(weight, moved, skip)


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """Their quotient, or 1 where either is 0: a weight of zeros could not leave zero."""
    return torch.where((above > 0) & (below > 0), above / below, 1.0)


def commit(old: Tensor, new: Tensor, skip: Tensor | None) -> None:
    """Writes over ``old``, unless ``skip`` says on the device not to."""
    old.copy_(new if skip is None else torch.where(skip, old, new))
