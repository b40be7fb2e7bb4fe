"""The start-up table: what will be trained on what, and which implementation serves each operation that has several."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from amdim.engine.compile import CompileChoice
from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.monitor.memory import gib
from amdim.engine.optim.adam import OptimizerChoice
from amdim.engine.precision import Precision
from amdim.engine.presets import Preset
from amdim.engine.runs import Config
from amdim.model.collectives import world_size
from amdim.model.streaming_nce import chosen

if TYPE_CHECKING:
    from amdim.pipeline import TwoViewLoader

FORMS = {"torch": "plain torch", "triton": "Triton"}

MOMENTS = {"lars": (1, "LARS's momentum"), "lamb": (2, "LAMB's moments"), "adamw": (2, "AdamW's moments")}

Row = tuple[str, str]


def plan(run: Path, config: Config, loader: TwoViewLoader, weights: int) -> list[Row]:
    """What will be trained on what; ``weights`` are the encoder's."""
    preset, encoder = config.settings, config.settings.encoder
    sizes = f"{encoder.size} px, w {encoder.width}, R {encoder.embedding}, d {encoder.depth}, {weights:,} weights"
    return [
        ("run", str(run)),
        ("data", f"{config.data}: {len(loader.store):,} images of {'+'.join(loader.splits)}"),
        ("views", f"recipe {preset.recipe}, {loader.recipe.color} colours: {loader.makers}"),
        ("preset", f"{config.preset}: {sizes}"),
        ("length", f"{config.steps:,} steps of {preset.batch} images, {config.steps / len(loader):.2f} epochs"),
        ("schedule", f"lr {preset.lr:g}, {preset.warmup} warm-up, {preset.schedule}{beyond(preset)}"),
    ]


def beyond(preset: Preset) -> str:
    """What is done to gradients and weights that the original does not do."""
    words = [] if preset.decay_biases else ["biases and normalisation do not decay"]
    words += [f"gradients clipped at norm {preset.grad_clip:g}"] if preset.grad_clip else []
    words += [f"weights averaged with decay {preset.ema:g}"] if preset.ema else []
    return "".join(f"; {each}" for each in words)


def checkpoints(config: Config, trained: int) -> Row:
    """What each checkpoint will hold and when the first is due; ``trained`` are all weights that the optimizer moves."""
    every = f"{config.save_every.removesuffix('m')} minutes" if config.save_every.endswith("m") else f"{config.save_every} steps"
    moments, named = MOMENTS.get(config.settings.optimizer, (2, "Adam's moments"))
    averages = ("their averages, ", 1) if config.settings.ema else ("", 0)
    size = 4 * (1 + moments + averages[1]) * trained
    holds = f"weights, {averages[0]}{named}, the loader's place, random states"
    return (
        "checkpoints",
        f"every {every}, {size / 1e6:,.1f} MB: {holds}; {config.keep} kept",
    )


def ranks(where: DistEnv, compress: str) -> list[Row]:
    """Who trains together, over what, and with how many cores each."""
    cores = len(os.sched_getaffinity(0))
    if where.world == 1:
        return [("ranks", f"1, with {where.threads} of {cores} core{'s' * (cores > 1)}")]
    backend = "nccl" if where.device.type == "cuda" else "gloo"
    there = "" if where.here == where.world else f", {where.here} of them on this machine"
    gradients = "bfloat16" if compress == "bf16" else "float32"
    share = f"{where.threads} of {cores} core{'s' * (cores > 1)} each for loading"
    return [("ranks", f"{where.world} over {backend}{there}, {share}; gradients travel in {gradients}")]


def means(device: torch.device, precision: Precision, optimizing: OptimizerChoice, compiling: CompileChoice) -> list[Row]:
    """How: one row for each operation that more than one implementation can serve, and why this one does."""
    form, why = chosen(device)
    eager = "plain torch" if device.type == "cuda" else "matrix products"
    return [
        ("device", f"{device}, {torch.get_num_threads()} threads, channels-last"),
        ("precision", f"{precision.name} ({precision.reason}); weights, statistics and scores float32"),
        ("encoder", f"{'torch.compile' if compiling.on else eager} ({compiling.reason})"),
        ("objective", f"streamed, in {FORMS[form]} ({why})"),
        (
            "statistics",
            f"of the batches of {world_size()} ranks, gathered"
            if world_size() > 1
            else "of each batch, torch's kernel (one rank)",
        ),
        ("optimizer", f"{optimizing.name}, {optimizing.kernel} ({optimizing.reason})"),
    ]


def rehearsed(row: dict[str, Any], config: Config, left: int, memory: tuple[int, int]) -> str:
    """What the steps that are left would cost, from the log row of one and the bytes of memory that it took of what there is."""
    images, (used, there) = min(row["images_per_s"], row["views_per_s"]), memory
    time = timedelta(seconds=round(left * config.settings.batch / images))
    return (
        f"dry run: {images:,.0f} images/s (data {row['data_s']:.3f} s, compute {row['compute_s']:.3f} s a step; "
        f"views alone {row['views_per_s']:,.0f} images/s), "
        f"{gib(used)} of {gib(there)} memory a process, loss {row['loss']:.3f}; "
        f"{left:,} steps of {config.settings.batch} images would take {time}. Nothing was written"
    )
