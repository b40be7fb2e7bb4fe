"""Pretrains AMDIM on a shard set.

\b
    python train.py                                        # data/imagenet, the paper's small encoder, one GPU
    python train.py --data shapes --preset demo --gpus 0   # on a laptop

A run lives in runs/<name>: config.json, metrics.jsonl, TensorBoard events, checkpoints/step-<n>. Typing the same command again
continues it where it was.
"""

from __future__ import annotations

import amdim.engine.bootstrap_venv  # noqa: F401 - first: runs this command in .venv where the packages are missing

# isort: split

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
import typer
from rich.console import Console
from torch import Tensor

from amdim.engine import checkpoint, config_file, precision, runs, train_options
from amdim.engine.async_checkpointer import AsyncCheckpointer
from amdim.engine.checkpoint_interval import CheckpointInterval
from amdim.engine.distributed import launcher
from amdim.engine.distributed.dist_env import DistEnv, find_dist_env, let_the_first_speak
from amdim.engine.distributed.process_group import joined
from amdim.engine.distributed.rank_coordinator import RankCoordinator
from amdim.engine.distributed.signals import GracefulShutdown, same_command
from amdim.engine.monitor import memory, startup_table, view_grid
from amdim.engine.monitor.console import Progress, make_console, print_presets, start_table
from amdim.engine.monitor.metrics_logger import FILE, MetricsLogger
from amdim.engine.presets import configure, default_preset, with_views
from amdim.engine.resume import announce, begin, warn_of_other
from amdim.engine.run_dir import inhabited
from amdim.engine.runs import Config
from amdim.engine.trainer import Trainer
from amdim.errors import as_typed, run_app
from amdim.model.collectives import rank
from amdim.pipeline import TwoViewLoader, Views
from amdim.pipeline.augment.recipe_file import as_fields, choose_recipe
from amdim.pipeline.cuda_keepalive import KeepAlive
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.remote_dataset import open_dataset

LOG_EVERY = 20  # steps; each log step waits for the device once
PRETRAIN_SPLITS = ("train", "unlabeled")


def stream(loader: TwoViewLoader) -> Iterator[tuple[Views, Tensor]]:
    """Batches and source locations without end, epoch after epoch."""
    while True:
        epoch, first = loader.epoch, loader.step
        for step, views in enumerate(loader, first):
            yield views, loader.locations(epoch, step)


def fit(
    trainer: Trainer,
    run: Path,
    progress: Progress,
    stop: GracefulShutdown,
    due: CheckpointInterval,
    peers: RankCoordinator,
    writer: AsyncCheckpointer,
) -> int:
    """Trains to the last step or to a signal, and saves as it goes and at the end; returns the exit code."""
    steps, began, batches = trainer.config.steps, trainer.step, peers.tracked(stream(trainer.loader))
    logs, code = MetricsLogger(run, trainer.step) if peers.rank == 0 else None, 0
    trainer.model.train()
    trainer.meter.start()
    progress.begin(trainer.step)
    while trainer.step < steps and not code:
        rate = trainer.learning_rate
        views = advance(trainer, batches)
        progress.tick(trainer.step)
        if trainer.step % LOG_EVERY == 0 or trainer.step == steps:
            log(trainer, rate, logs, progress, writer)
            if logs and view_grid.due(trainer.step, first=trainer.step - began <= LOG_EVERY):
                logs.write_pairs(
                    trainer.step, view_grid.picture(*views[:2], trainer.loader.recipe.mean, trainer.loader.recipe.std)
                )
        saving, code = agree(trainer.step, stop, due, peers)
        if saving and trainer.step < steps:
            save(trainer, writer.save, logs)
        report_save(writer, progress)
    peers.rest()
    save(trainer, writer.finish, logs)
    report_save(writer, progress)
    if logs:
        logs.close()
    return code


def advance(trainer: Trainer, batches: Iterator[tuple[Views, Tensor]]) -> Views:
    """One step with the next batch, which is good until the one after it is asked for."""
    asked, waited = time.perf_counter(), KeepAlive.waited
    views, locations = next(batches)
    label, locations = (send(t, trainer.device) for t in (views.label, locations))
    trainer.meter.data_s += time.perf_counter() - asked - (KeepAlive.waited - waited)
    trainer.update(views.x1, views.x2, label, locations)
    trainer.watch.check()
    return views


def agree(step: int, stop: GracefulShutdown, due: CheckpointInterval, peers: RankCoordinator) -> tuple[bool, int]:
    """Whether all ranks save now, and the exit code with which all stop now, or 0: clocks and signals are of single ranks."""
    saving = due(step)
    if saving and due.minutes:
        saving = False
        if peers.rank == 0:
            peers.ask("save")
    if stop.code is not None:
        peers.ask(str(stop.code))
    word = peers.reached(step) or ""
    return saving or word == "save", int(word) if word.isdigit() else 0


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for it, which takes pinned memory."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def log(trainer: Trainer, rate: float, logs: MetricsLogger | None, progress: Progress, writer: AsyncCheckpointer) -> None:
    loader = trainer.loader
    row = {"step": trainer.step, "epoch": loader.epoch + loader.step / len(loader), "lr": rate}
    row |= trainer.meter.read(loader.batch) | trainer.scale() | writer.row()
    row |= trainer.rates(row["images_per_s"])
    trainer.watch.check(wait=True)
    if logs:
        logs.write(row)
    progress.show(row)


def report_save(writer: AsyncCheckpointer, progress: Progress) -> None:
    if written := writer.news():
        progress.say(str(written))


def save(
    trainer: Trainer, write: Callable[[int, dict[str, Tensor], dict[str, Any], float], None], logs: MetricsLogger | None
) -> None:
    began = time.perf_counter()
    trainer.watch.check(wait=True)
    if logs:
        logs.flush()
    weights, state = trainer.model.state_dict(), trainer.state_dict()  # every rank's
    if rank() == 0:
        write(trainer.step, weights, state, began)


def announce_plan(trainer: Trainer, run: Path, console: Console) -> None:
    weights, trained = (sum(map(Tensor.numel, part.parameters())) for part in (trainer.model.encoder, trainer.model))
    rows = startup_table.plan(run, trainer.config, trainer.loader, weights) + startup_table.ranks(
        trainer.where, trainer.config.compress
    )
    rows += [startup_table.checkpoints(trainer.config, trained)]
    start_table(rows + startup_table.means(trainer.device, trainer.precision, trainer.optimizing, trainer.compiling), console)


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    ctx: typer.Context,
    data: train_options.Data = "imagenet",
    preset: train_options.Preset = None,
    gpus: train_options.Gpus = None,
    procs: train_options.Procs = None,
    run: train_options.Run = None,
    epochs: train_options.Epochs = None,
    steps: train_options.Steps = None,
    batch: train_options.Batch = None,
    lr: train_options.Rate = None,
    optimizer: train_options.Optimizer = None,
    decay_biases: train_options.DecayBiases = None,
    schedule: train_options.Schedule = None,
    warmup: train_options.Warmup = None,
    grad_clip: train_options.GradClip = None,
    ema: train_options.Ema = None,
    mixture: train_options.Mixture = None,
    mixture_mode: train_options.MixtureMode = None,
    mixture_alpha: train_options.MixtureAlpha = None,
    cache_dir: train_options.CacheDir = None,
    cache_gb: train_options.CacheGb = None,
    recipe: train_options.Recipe = None,
    seed: train_options.Seed = 0,
    amp: train_options.Amp = "auto",
    pixels: train_options.Pixels = "auto",
    kernel: train_options.Kernel = "torch",
    compiled: train_options.Compiled = "auto",
    recompute: train_options.Recompute = False,
    resume: train_options.Resume = "auto",
    init: train_options.Init = None,
    save_every: train_options.SaveEvery = "10m",
    compress: train_options.Compress = "off",
    max_restarts: train_options.MaxRestarts = 3,
    timeout: train_options.Timeout = 600,
    keep: train_options.Keep = 2,
    config: train_options.File = None,
    dry_run: train_options.DryRun = False,
    presets: train_options.Presets = False,
    quiet: train_options.Quiet = False,
    debug: train_options.Debug = False,
) -> None:
    if presets:
        print_presets(make_console())
        return
    due, where, shards = (
        CheckpointInterval(save_every),
        find_dist_env(gpus, procs),
        open_dataset(runs.data_path(data), cache_dir, cache_gb),
    )
    fields, loader = prepare(ctx, where, shards)
    directory = runs.run_path(run) if run is not None else runs.default_run(shards.name, fields)
    if not where.started:
        named = [] if run is not None else ["--run", str(directory)]
        raise typer.Exit(launcher.run_ranks(where.world, [*sys.argv, *named], 0 if dry_run else max_restarts, saves=not dry_run))
    console = make_console(quiet or where.rank > 0)
    with joined(where, timeout) as peers, memory.explained(advice(fields, where, recompute, directory)), shards:
        trainer = Trainer(fields, loader, where, recompute)
        warn_of_other(ctx.meta.get("machine", {}), trainer)
        act = rehearse if dry_run else partial(train, due=due, peers=peers)
        code = act(trainer, directory, resume, console=console)
    if where.rank == 0:
        launcher.report(code)
    raise typer.Exit(code)


def advice(config: Config, where: DistEnv, recompute: bool, run: Path) -> list[str]:
    """What to try where memory runs out."""
    half = precision.choose(config.amp, where.device).dtype is not None
    begun = bool(checkpoint.steps(run / "checkpoints"))
    return memory.advice(config.settings.batch, where.world, recompute, half, begun)


def prepare(ctx: typer.Context, where: DistEnv, shards: ShardedDataset) -> tuple[Config, TwoViewLoader]:
    """The run that the options ask for, and its loader.

    Raises:
        UsageError: options, or settings of a file, that no run can have; names them.
    """
    asked, file = ctx.params, ctx.obj or {}
    steps, manifest = config_file.length(ctx), shards.manifest
    preset = asked["preset"] or default_preset(manifest.name, where.device.type == "cuda")
    splits = [split for split in PRETRAIN_SPLITS if split in manifest.splits]
    samples = sum(manifest.splits[split].samples for split in splits)
    settings = configure(preset, samples, {name: asked[name] for name in train_options.OF_PRESET}, file)
    seen, views = choose_recipe(asked["recipe"], ctx.meta.get("views"), settings.recipe)
    settings = with_views(settings, seen, views.size, file.get("encoder", {}).get("size"))
    own = (where.rank, where.world, where.device, asked["seed"], where.threads, asked["pixels"])
    loader = TwoViewLoader(shards, splits, views, settings.batch, *own)
    length = steps or max(1, round(settings.epochs * len(loader)))
    given = {name: asked[name] for name in train_options.OF_RUN}
    return Config(str(shards), preset, settings, length, views=as_fields(views), **given), loader


def rehearse(trainer: Trainer, run: Path, resume: str, console: Console) -> int:
    """What training does before it begins, and two steps, the second of which is timed, then views alone; nothing is written."""
    announce(begin(trainer, run, resume), trainer, console)
    trainer.join()
    announce_plan(trainer, run, console)
    trainer.model.train()
    left, batches = trainer.config.steps - trainer.step, stream(trainer.loader)
    for _ in range(2):
        trainer.meter.start()
        advance(trainer, batches)
        row = trainer.meter.read(trainer.loader.batch)
        trainer.watch.check(wait=True)
    row["views_per_s"] = trainer.loader.batch / seconds_of_views(batches)
    words = startup_table.rehearsed(row, trainer.config, left, memory.peak(trainer.device))
    console.print(words, soft_wrap=True, highlight=False)
    return 0


def seconds_of_views(batches: Iterator[tuple[Views, Tensor]], ready: int = 3, timed: int = 3) -> float:
    """What a batch takes to be made. A step's own wait does not tell: some were made while kernels were built."""
    for _ in range(ready):
        next(batches)
    began = time.perf_counter()
    for _ in range(timed):
        next(batches)
    return (time.perf_counter() - began) / timed


def train(trainer: Trainer, run: Path, resume: str, due: CheckpointInterval, peers: RankCoordinator, console: Console) -> int:
    """Begins or continues a run, and ends with what to type next; returns the exit code."""
    begun = begin(trainer, run, resume)
    if trainer.step >= trainer.config.steps:
        console.print(f"{run} is finished: {trainer.step:,} steps. {next_command(trainer, run)}", markup=False)
        return 0
    stop = peers.stop = GracefulShutdown(speaks=peers.world == 1, launched=launcher.launched())
    described = trainer.config.as_dict() | {"machine": trainer.machine}
    with inhabited(run, described, trainer.step, begun.there) if peers.rank == 0 else nullcontext():
        trainer.join()
        announce_plan(trainer, run, console)
        announce(begun, trainer, console)
        patience = None if peers.world == 1 else peers.timeout / 2
        writer = AsyncCheckpointer(
            run / "checkpoints", trainer.config.as_dict(), trainer.config.keep, begun.saved, run / FILE, patience
        )
        with writer, Progress(trainer.config.steps, console) as progress:
            code = fit(trainer, run, progress, stop, due, peers, writer)
    if not code or trainer.step == trainer.config.steps:
        console.print(f"done: {run}. {next_command(trainer, run)}", markup=False)
        return 0
    again = "" if peers.world == 1 or launcher.launched() else ", with torchrun or srun as before"
    words = f"stopped and saved at step {trainer.step:,}; the same command goes on from there"
    console.print(f"{words}{again}: {same_command(sys.argv)}", soft_wrap=True, markup=False)
    return code


def next_command(trainer: Trainer, run: Path) -> str:
    command = f"Next: python eval.py --probe linear --run {shlex.quote(str(run))}"
    return as_typed(command if trainer.loader.manifest.classes else f"{command} --data NAME, with a set that has labels")


def run() -> NoReturn:
    """Run the command line, and exit."""
    run_app(app, "train.py", let_the_first_speak)


if __name__ == "__main__":
    run()
