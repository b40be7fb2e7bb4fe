"""Adam with L2 weight decay, or AdamW, all weights in one kernel: torch's, or apex's where it is asked for.

torch's fused kernel is a port of apex's (pytorch/pytorch#81705) that learns on the GPU itself whether a scaled step is to be
skipped, where a GradScaler asks the host before each step of apex's; and it refuses a gradient whose memory layout is not its
weight's, which apex's would pair element by element as they lie. So torch's is the default, and apex's is there to be compared.

A checkpoint holds torch's form of the state, whichever kernel wrote it: either continues the other's run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from amdim.engine.presets import Preset
from amdim.errors import UsageError

KERNELS = ("torch", "apex")
NAMES = {"adam": "Adam", "adamw": "AdamW"}


class OptimizerChoice(NamedTuple):
    """An optimizer; its ``name``, and ``kernel`` and ``reason``, whose it is and why, are for the start-up table."""

    optimizer: torch.optim.Optimizer
    name: str
    kernel: str
    reason: str


def make(
    asked: str, weights: Iterable[nn.Parameter] | Iterable[dict[str, Any]], preset: Preset, device: torch.device
) -> OptimizerChoice:
    """The preset's Adam or AdamW, for weights or groups of them, by ``asked``, one of KERNELS.

    Raises:
        UsageError: there is no such kernel, or it does not work here.
    """
    if asked not in KERNELS:
        raise UsageError(f"--adam {asked}: give {' or '.join(KERNELS)}")
    options = {"lr": preset.lr, "betas": (preset.beta1, preset.beta2), "weight_decay": preset.weight_decay}
    if asked == "apex":
        if device.type != "cuda":
            raise UsageError("--adam apex: its kernel is CUDA's, and this run is on the CPU; leave it out")
        made = find_apex(device)(weights, adam_w_mode=preset.optimizer == "adamw", **options)
        return OptimizerChoice(made, NAMES[preset.optimizer], "apex's fused kernel", "asked for; works here")
    reason = "one kernel, and no wait for the GPU" if device.type == "cuda" else "one pass over the weights"
    kind = torch.optim.AdamW if preset.optimizer == "adamw" else torch.optim.Adam
    return OptimizerChoice(kind(weights, fused=True, **options), NAMES[preset.optimizer], "torch's fused kernel", reason)  # type: ignore[arg-type]


def find_apex(device: torch.device, name: str = "FusedAdam") -> Any:
    """The optimizer of apex's with this name. It is tried on one weight, as a build without CUDA can be imported.

    Raises:
        UsageError: it cannot be used here; says why.
    """
    try:
        import apex.optimizers

        fused = getattr(apex.optimizers, name)
        weight = nn.Parameter(torch.zeros(1, device=device))
        weight.grad = torch.ones_like(weight)
        fused([weight]).step()
    except Exception as error:  # what is installed under this name may be anything
        raise UsageError(f"--adam apex: {why_not(error)}; leave it out, or build NVIDIA's with `make apex`") from error
    return fused


def why_not(error: BaseException | None) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing == "apex":
        return "apex is not installed"
    if missing == "apex.optimizers":
        return "the apex that is installed is not NVIDIA's"
    return f"the apex that is installed does not work here ({str(error).partition(chr(10))[0] or type(error).__name__})"


def state_dict(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state as torch's Adam has it, with a count of steps for each weight; apex's optimizers have one for all."""
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        if "step" in group:
            steps = float(group.pop("step"))
            for i in saved["state"].keys() & group["params"]:  # a tensor each: torch's Adam counts in place
                saved["state"][i] = saved["state"][i] | {"step": torch.tensor(steps)}
    return saved


def load_state_dict(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Continues from what ``state_dict`` gave, of this kernel or the other. Betas and decay stay the optimizer's own.

    Raises:
        UsageError: weights have taken different numbers of steps, for which apex's has no place.
    """
    groups, state = optimizer.state_dict()["param_groups"], saved["state"]
    if type(optimizer).__module__.startswith("apex"):
        steps = sorted({int(each["step"]) for each in state.values()})
        if len(steps) > 1:
            raise UsageError(f"--adam apex: counts steps for all weights together, and here they took {steps}; leave it out")
        state = {i: {name: value for name, value in each.items() if name != "step"} for i, each in state.items()}
        groups = [group | dict(zip(["step"], steps, strict=False)) for group in groups]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
