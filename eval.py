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

import engine.environment  # noqa: F401 - first: runs this command in .venv where the packages are missing

# isort: split

import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.table import Table

from engine import elastic, imports, precision, runs
from engine.average import wanted
from engine.checkpoint import Checkpoint
from engine.console import make_console, start_table
from engine.launch import Place, let_the_first_speak, place
from engine.options import CacheDir, CacheGb, Debug, Procs, Timeout
from errors import UsageError, run_app
from evaluation import options, results
from evaluation.compare import compare as compare_runs
from evaluation.contenders import weights_of
from evaluation.curve import draw_curve
from evaluation.export import export as export_encoder
from evaluation.features_file import write_features
from evaluation.modes import check_modes
from evaluation.plan import Subject, check, check_writable, make_plan
from evaluation.probing import probe
from evaluation.record import recorded
from evaluation.report.collect import Find
from evaluation.report.write import write_report
from evaluation.segment import segment
from evaluation.segment_figure import draw_segments
from evaluation.segmenters import NAMES
from pipeline.remote import find_set
from pipeline.shard_set import ShardSet


def import_original(file: Path | None, out: str | None, console: Console) -> None:
    """Writes a run from a checkpoint of amdim-public and says what to type next."""
    if file is None:
        raise UsageError("--out: says where an import goes; give --import-amdim-public FILE with it")
    if out is None:
        raise UsageError(f"--import-amdim-public {file}: say where its run goes, as in --out runs/imported")
    directory = runs.run_path(out, "--out")
    found = imports.import_run(file, directory)
    start_table(imports.summary(file, found), console)
    following = f"python eval.py --probe linear --run {shlex.quote(str(directory))} --data NAME"
    console.print(f"written: {directory}. Next: {following}", soft_wrap=True, markup=False)


def measure_segments(subject: Subject, where: Place, console: Console) -> None:
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
    find: Callable[[], ShardSet],
    export: Path | None,
    out: Path | None,
    mean: bool,
    where: Place,
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
    compared: options.Compared = None,
    probes: options.Probes = "linear",
    run: options.Run = None,
    checkpoint: options.CheckpointDir = None,
    data: options.Data = None,
    cache_dir: CacheDir = None,
    cache_gb: CacheGb = None,
    gpus: options.Gpus = None,
    procs: Procs = None,
    protocol: options.Protocol = "cached",
    views: options.ProbeViews = None,
    split: options.Split = "val",
    fraction: options.Fraction = None,
    probe_epochs: options.ProbeEpochs = None,
    batch: options.ProbeBatch = None,
    finetune_lr: options.FinetuneRate = None,
    baselines: options.Baselines = True,
    keep_features: options.KeepFeatures = False,
    curve: options.Curve = False,
    imported: options.Imported = None,
    out: options.Out = None,
    segments: options.Segments = False,
    last: options.LastWeights = False,
    export: options.Export = None,
    features_out: options.FeaturesOut = None,
    compare: options.Compare = False,
    report: options.Report = False,
    timeout: Timeout = 600,
    debug: Debug = False,
) -> None:
    console = make_console()
    check_modes(ctx)
    if imported is not None or out is not None:
        import_original(imported, out, console)
        return
    if compare or compared:
        compare_runs(options.runs_to_compare(compare, compared), console)
        return
    find = partial(find_set, cache_dir=cache_dir, cache_gb=cache_gb)
    if report:
        report_on(run_to_report(run, checkpoint), data, place(gpus).device, last, find, console)
        return
    plan = make_plan(probes, protocol, views, fraction, probe_epochs, finetune_lr, baselines, keep_features, batch, split)
    directory = runs.evaluated(run, checkpoint)
    if curve:
        console.print(f"training curve: {draw_curve(directory)}", markup=False)
        return
    saved, mean = wanted(runs.read(checkpoint, "--checkpoint") if checkpoint else runs.newest_checkpoint(directory), last)
    if export is not None or features_out is not None:
        write_out(saved, directory, lambda: find(runs.data_of(saved, data)), export, features_out, mean, place(gpus), console)
        return
    subject, where = Subject(saved, directory, find(runs.data_of(saved, data)), mean), place(gpus, procs)
    if segments:
        measure_segments(subject, where, console)
        return
    check(subject, plan)
    if not where.started:
        raise typer.Exit(elastic.run_ranks(where.world, sys.argv, 0, saves=False))
    probe(subject, plan, where, make_console(quiet=where.rank > 0), timeout)


if __name__ == "__main__":
    run_app(app, "eval.py", let_the_first_speak)
