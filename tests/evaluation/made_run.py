"""A run as training leaves it, without the training: what is read from it is what matters here."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import torch

from amdim.engine import checkpoint
from amdim.engine.presets import PRESETS
from amdim.engine.runs import Config
from amdim.model import AMDIM, EncoderConfig
from amdim.pipeline.augment.recipe_file import as_fields
from amdim.pipeline.augment.recipes import RECIPES

NET = EncoderConfig(32, 8, 48, 1, use_bn=True)


def row(step, labelled=True, slow=60):
    fall = math.exp(-step / 300)
    terms = {"loss_1t5": 2 + 6 * fall, "loss_1t7": 5 + 3 * fall, "loss_5t5": 4 + 8 * fall}
    times = {"data_s": 0.1, "compute_s": 0.2 if step != slow else 0.9, "images_per_s": 128 / (0.3 if step != slow else 1.0)}
    tops = (
        {"linear_top1": 0.1 + step / 4000, "mlp_top1": 0.1 + step / 3000}
        if labelled
        else dict.fromkeys(("linear_top1", "mlp_top1"))
    )
    return {"step": step, "epoch": step / 100, "loss": sum(terms.values()), "lr": 1e-3, "memory_gib": 1.0} | terms | times | tops


def make_run(path, data, classes, steps=100, saved=True, rows=True, **changes):
    """``changes`` are of the preset ``demo``."""
    settings = replace(PRESETS["demo"], encoder=NET, **changes)
    views = as_fields(RECIPES[settings.recipe])
    config = Config(str(data), "demo", settings, steps, 0, "auto", "10m", views=views).as_dict()
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    if rows:
        lines = [json.dumps(row(step, labelled=classes > 0)) for step in range(20, steps + 1, 20)]
        (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if saved:
        torch.manual_seed(0)
        weights = AMDIM(NET, classes, settings.clip, settings.mixture, settings.mixture_mode, settings.mixture_alpha).state_dict()
        checkpoint.save(path / "checkpoints", steps, weights, {"step": steps, "machine": {"precision": "bfloat16"}}, config)
    return path


def result(probe, classes, weights="", table=True, data="data/x"):
    """What a probe writes, of 10 images a class."""
    n = len(classes)
    confusion = [[7 if i == j else 3 if j == (i + 1) % n else 0 for j in range(n)] for i in range(n)]
    return {
        "probe": probe,
        "data": str(data),
        "step": 100,
        "weights": weights,
        "n_test": 10 * n,
        "top1": 0.7,
        "top5": 0.9 if n > 5 else None,
        "interval": [0.65, 0.74],
        "top1_random_init": 0.3,
        "top1_raw_pixels": None,
        "classes": classes,
        "per_class": [0.7] * n,
        "confusion": confusion if table else None,
        "confused": [{"truth": i, "taken": (i + 1) % n, "images": 3, "share": 0.3} for i in range(min(n, 20))],
        "fractions": {"0.1": 0.5},
        "fractions_random_init": {"0.1": 0.25},
        "fractions_raw_pixels": {"0.1": None},
        "fractions_images": {"0.1": 7},
    }
