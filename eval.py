"""Probes a pretrained encoder.

\b
    python eval.py --probe linear                    # the latest run, on the data it was trained on
    python eval.py --probe linear,mlp,knn --run NAME --data OTHER
    python eval.py --import-amdim-public FILE.pth --out runs/imported    # a checkpoint of the original becomes a run
    python eval.py --segment                         # of a run with --mixture, on images with masks: `shapes`
    python eval.py --export encoder.onnx             # or .safetensors, .pt2: the encoder for other programs
    python eval.py --features OUT.npz                # of every image of a shard set, with labels and keys
    python eval.py --compare runs/a runs/b           # one table, one picture
    python eval.py --report                          # report.html: everything there is to see of a run

Trains each probe on the training split and tests it on the whole validation split, beside the same encoder at random
initialisation and the image's own pixels. Writes eval-<probe>.json into the run. docs/probes.md explains all of it.
"""

from __future__ import annotations

import amdim.engine.bootstrap_venv  # noqa: F401 - first: runs this command in .venv where the packages are missing

# isort: split

import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
import typer
from rich.console import Console
from rich.table import Table

from amdim.engine import import_amdim_public, precision, runs
from amdim.engine.checkpoint import Checkpoint
from amdim.engine.distributed import launcher
from amdim.engine.distributed.dist_env import DistEnv, find_dist_env, let_the_first_speak
from amdim.engine.monitor.console import make_console, start_table
from amdim.engine.optim.ema import wanted
from amdim.engine.train_options import CacheDir, CacheGb, Debug, Procs, Timeout
from amdim.errors import UsageError, as_typed, run_app
from amdim.evaluation import eval_options, results
from amdim.evaluation.compare_runs import compare as compare_runs
from amdim.evaluation.export import export as export_encoder
from amdim.evaluation.export_features import write_features
from amdim.evaluation.feature_extractors import weights_of
from amdim.evaluation.option_check import check_modes
from amdim.evaluation.probe_tasks import Subject, check, check_writable, make_plan
from amdim.evaluation.report.html import write_report
from amdim.evaluation.report.report_data import Find
from amdim.evaluation.run_probes import probe
from amdim.evaluation.run_record import recorded
from amdim.evaluation.segmentation.measure import segment
from amdim.evaluation.segmentation.segmentation_figure import draw_segments
from amdim.evaluation.segmentation.segmenters import NAMES
from amdim.evaluation.training_curve import draw_curve
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.remote_dataset import open_dataset


def import_original(file: Path | None, out: str | None, console: Console) -> None:
    """Writes a run from a checkpoint of amdim-public and says what to type next."""
    if file is None:
        raise UsageError("--out: says where an import goes; give --import-amdim-public FILE with it")
    if out is None:
        raise UsageError(f"--import-amdim-public {file}: say where its run goes, as in --out runs/imported")
    directory = runs.run_path(out, "--out")
    found = import_amdim_public.import_run(file, directory)
    start_table(import_amdim_public.summary(file, found), console)
    following = f"python eval.py --probe linear --run {shlex.quote(str(directory))} --data NAME"
    console.print(f"written: {directory}. Next: {as_typed(following)}", soft_wrap=True, markup=False)


def measure_segments(subject: Subject, where: DistEnv, console: Console) -> None:
    """Writes eval-segment.json and segments.png into the run."""
    started, (saved, run, data, mean) = time.perf_counter(), subject
    check_writable(run, ["segment"])
    with data:
        found = segment(saved, data, precision.choose("auto", where.device), where.device)
    result = {"probe": "segment", "data": str(data), "run": str(run), "step": saved.trainer["step"], "n_test": found.n_test}
    result |= {"methods": found.scores, "methods_train": found.train_scores}
    result |= {"weights": weights_of(saved), "averaged": mean}
    result |= {"n_train": found.n_train, "seconds": round(time.perf_counter() - started, 2)}
    results.write(results.file_of(run, "segment"), result)
    words = f"{run}, step {saved.trainer['step']:,}, on {data}: {found.n_test:,} images with masks"
    console.print(words, markup=False)
    table = Table("K = " + str(found.posterior.shape[1]), "IoU, best", "IoU, fixed", "ARI")
    for name, scores in found.scores.items():
        table.add_row(NAMES[name], *("" if value is None else f"{value:.3f}" for value in scores.values()))
    console.print(table)
    console.print(f"figure: {draw_segments(found, run)}", markup=False)


def run_to_report(run: str | None, checkpoint: Path | None) -> Path:
    if checkpoint is not None:
        raise UsageError(f"--checkpoint {checkpoint}: a report is of a run's newest weights; give --run instead")
    return recorded(run)


def report_on(run: Path, data: str | None, device: torch.device, last: bool, find: Find, console: Console) -> None:
    console.print(f"report: {write_report(run, data, device, last, find)}", soft_wrap=True, highlight=False, markup=False)


def write_out(
    saved: Checkpoint,
    run: Path,
    find: Callable[[], ShardedDataset],
    export: Path | None,
    out: Path | None,
    mean: bool,
    where: DistEnv,
    console: Console,
) -> None:
    """What does without probes: writes the encoder, or features of a shard set; says what was written."""
    say = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    if export is not None:
        say(f"written: {', '.join(map(str, export_encoder(saved, run, export, mean)))}")
    if out is not None:
        with find() as data:
            images, values = write_features(saved, data, out, precision.choose("auto", where.device), where.device)
        say(f"written: {out}, {images:,} images with {values:,} features each")


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    ctx: typer.Context,
    compared: eval_options.Compared = None,
    probes: eval_options.Probes = "linear",
    run: eval_options.Run = None,
    checkpoint: eval_options.CheckpointDir = None,
    data: eval_options.Data = None,
    cache_dir: CacheDir = None,
    cache_gb: CacheGb = None,
    gpus: eval_options.Gpus = None,
    procs: Procs = None,
    protocol: eval_options.Protocol = "cached",
    views: eval_options.ProbeViews = None,
    split: eval_options.Split = "val",
    fraction: eval_options.Fraction = None,
    probe_epochs: eval_options.ProbeEpochs = None,
    batch: eval_options.ProbeBatch = None,
    finetune_lr: eval_options.FinetuneRate = None,
    baselines: eval_options.Baselines = True,
    keep_features: eval_options.KeepFeatures = False,
    curve: eval_options.Curve = False,
    imported: eval_options.Imported = None,
    out: eval_options.Out = None,
    segments: eval_options.Segments = False,
    last: eval_options.LastWeights = False,
    export: eval_options.Export = None,
    features_out: eval_options.FeaturesOut = None,
    compare: eval_options.Compare = False,
    report: eval_options.Report = False,
    timeout: Timeout = 600,
    debug: Debug = False,
) -> None:
    console = make_console()
    check_modes(ctx)
    if imported is not None or out is not None:
        import_original(imported, out, console)
        return
    if compare or compared:
        compare_runs(eval_options.runs_to_compare(compare, compared), console)
        return
    find = partial(open_dataset, cache_dir=cache_dir, cache_gb=cache_gb)
    if report:
        report_on(run_to_report(run, checkpoint), data, find_dist_env(gpus).device, last, find, console)
        return
    plan = make_plan(probes, protocol, views, fraction, probe_epochs, finetune_lr, baselines, keep_features, batch, split)
    directory = runs.evaluated(run, checkpoint)
    if curve:
        console.print(f"training curve: {draw_curve(directory)}", markup=False)
        return
    saved, mean = wanted(runs.read(checkpoint, "--checkpoint") if checkpoint else runs.newest_checkpoint(directory), last)
    if export is not None or features_out is not None:
        write_out(
            saved, directory, lambda: find(runs.data_of(saved, data)), export, features_out, mean, find_dist_env(gpus), console
        )
        return
    subject, where = Subject(saved, directory, find(runs.data_of(saved, data)), mean), find_dist_env(gpus, procs)
    if segments:
        measure_segments(subject, where, console)
        return
    check(subject, plan)
    if not where.started:
        raise typer.Exit(launcher.run_ranks(where.world, sys.argv, 0, saves=False))
    probe(subject, plan, where, make_console(quiet=where.rank > 0), timeout)


def run() -> NoReturn:
    """Run the command line, and exit."""
    run_app(app, "eval.py", let_the_first_speak)


if __name__ == "__main__":
    run()
