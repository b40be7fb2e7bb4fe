"""The learning rate as a pure function of the update."""

from __future__ import annotations

import math

from amdim.engine.presets import Preset


def learning_rate(preset: Preset, step: int, steps: int) -> float:
    """Rate of update ``step`` (from 0) of ``steps``: a linear rise, then cosine to zero or a fifth at each milestone."""
    rise = min(1.0, (step + 1) / max(1, preset.warmup))
    if preset.schedule == "step":
        passed = sum(step >= milestone * steps for milestone in preset.milestones)
        return preset.lr * rise * 0.2**passed
    done = max(0, step - preset.warmup) / max(1, steps - preset.warmup)
    return preset.lr * rise * 0.5 * (1 + math.cos(math.pi * done))
