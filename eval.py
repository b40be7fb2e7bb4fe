"""Probes a pretrained encoder.

    python eval.py --probe linear                    # the latest run, on the data it was trained on
    python eval.py --probe linear,knn --run NAME
    python eval.py --import-amdim-public FILE.pth --out runs/imported    # a checkpoint of the original becomes a run
    python eval.py --segment                         # of a run with --mixture, on images with masks: `shapes`
    python eval.py --export encoder.onnx             # or .safetensors, .pt2: the encoder for other programs
    python eval.py --features OUT.npz                # of every image of a shard set, with labels and keys
    python eval.py --compare runs/a runs/b           # one table, one picture
    python eval.py --report                          # report.html: everything there is to see of a run

Trains each probe on the frozen features of the training split and reports top-1 on the whole validation split, beside the same
encoder at random initialisation and the image's own pixels. Writes eval-<probe>.json into the run.
"""

from __future__ import annotations

import engine.environment  # noqa: F401 - first: runs this command in .venv where the packages are missing

# isort: split

import json
import shlex
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from engine import imports, precision, runs
from engine.average import averaged
from engine.checkpoint import Checkpoint
from engine.console import make_console, start_table
from engine.launch import place
from engine.options import CacheDir, CacheGb, check_positive
from errors import UsageError, run_app
from evaluation import options
from evaluation.compare import compare as compare_runs
from evaluation.curve import draw_curve
from evaluation.export import export as export_encoder
from evaluation.features import Labelled, collect, pixels, represent
from evaluation.features_file import write_features
from evaluation.knn import knn_top1
from evaluation.linear import linear_top1
from evaluation.record import latest_record
from evaluation.report.write import write_report
from evaluation.segment import segment
from evaluation.segment_figure import draw_segments
from model import Encoder
from pipeline import EvalLoader
from pipeline.recipe_file import recipe_of
from pipeline.remote import find_set
from pipeline.shard_set import ShardSet

PROBES: dict[str, Callable[[Labelled, Labelled, int], float]] = {"linear": linear_top1, "knn": knn_top1}
CONTENDERS = ("top1", "top1_random_init", "top1_raw_pixels")
TITLES = ("this encoder", "same encoder, random initialisation", "raw pixels, at most 32 x 32")

METHODS = {
    "mixture": "mixture's posterior",
    "random": "random posterior",
    "kmeans_r7": "k-means on r7",
    "kmeans_r7_by_image": "k-means on r7, each image by itself",
    "kmeans_colour": "k-means on the locations' mean colours",
    "kmeans_colour_by_image": "the same, each image by itself",
    "kmeans_pixels_by_image": "k-means on the pixels of each image, not 7x7",
}


class Features(NamedTuple):
    """Training and test features of each contender, in the order of CONTENDERS."""

    train: list[Labelled]
    test: list[Labelled]
    classes: int


def extract(saved: Checkpoint, data: ShardSet, device: torch.device) -> Features:
    """One pass over each split through the trained encoder, a random one of the same kind, and none."""
    check_labels(data)
    recipe = recipe_of(saved.config)
    how = precision.choose("auto", device)
    functions = [represent(encoder, how, device) for encoder in (trained(saved), untrained(saved))]
    with data:
        train, test = (
            collect(EvalLoader(data, [split], recipe, device=device), *functions, pixels) for split in ("train", "val")
        )
    return Features(train, test, len(data.manifest.classes))


def check_labels(data: ShardSet) -> None:
    manifest = data.manifest
    for split in ("train", "val"):
        if split not in manifest.splits:
            raise UsageError(f"{data}: has no split '{split}', which a probe needs")
        if not manifest.splits[split].labelled:
            raise UsageError(f"{data}: split '{split}' has no labels, which a probe needs; probe on a labelled set with --data")
    if len(manifest.classes) < 2:
        raise UsageError(f"{data}: has {len(manifest.classes)} class, and a probe tells at least 2 apart")


def trained(saved: Checkpoint) -> Encoder:
    encoder = untrained(saved)
    prefix = "encoder."
    encoder.load_state_dict({k.removeprefix(prefix): v for k, v in saved.weights.items() if k.startswith(prefix)})
    return encoder


def untrained(saved: Checkpoint) -> Encoder:
    """The encoder as it was before training: same configuration, same seed."""
    torch.manual_seed(saved.config["seed"])
    return Encoder(runs.encoder_config(saved.config))


def probe(name: str, features: Features) -> dict[str, float]:
    """Top-1 of every contender."""
    pairs = zip(CONTENDERS, features.train, features.test, strict=True)
    return {key: PROBES[name](train, test, features.classes) for key, train, test in pairs}


def write(path: Path, result: dict[str, object]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.replace(path)


def import_original(file: Path, out: str | None, console: Console) -> None:
    """Writes a run from a checkpoint of amdim-public and says what to type next."""
    if out is None:
        raise UsageError(f"--import-amdim-public {file}: say where its run goes, as in --out runs/imported")
    directory = runs.run_path(out, "--out")
    found = imports.import_run(file, directory)
    start_table(imports.summary(file, found), console)
    name = shlex.quote(str(directory))
    console.print(f"written: {directory}. Next: python eval.py --probe linear --run {name} --data NAME", soft_wrap=True)


def show(results: list[dict[str, object]], console: Console) -> None:
    table = Table("top-1", *(str(result["probe"]) for result in results))
    for key, title in zip(CONTENDERS, TITLES, strict=True):
        table.add_row(title, *(f"{result[key]:.2%}" for result in results))
    console.print(table)


def measure_segments(saved: Checkpoint, data: ShardSet, run: Path, device: torch.device, console: Console) -> None:
    """Writes eval-segment.json and segments.png into the run."""
    started = time.perf_counter()
    with data:
        found = segment(saved, data, precision.choose("auto", device), device)
    result = {"probe": "segment", "data": str(data), "run": str(run), "step": saved.trainer["step"], "n_test": found.n_test}
    result |= dict.fromkeys(CONTENDERS) | {"methods": found.scores, "methods_train": found.train_scores}
    result |= {"n_train": found.n_train, "seconds": round(time.perf_counter() - started, 2)}
    write(run / "eval-segment.json", result)
    console.print(f"{run}, step {saved.trainer['step']:,}, on {data}: {found.n_test:,} images with masks")
    table = Table("K = " + str(found.posterior.shape[1]), "IoU, best", "IoU, fixed", "ARI")
    for name, scores in found.scores.items():
        table.add_row(METHODS[name], *("" if value is None else f"{value:.3f}" for value in scores.values()))
    console.print(table)
    console.print(f"figure: {draw_segments(found, run)}")


def use(
    saved: Checkpoint, run: Path, data: ShardSet | None, export: Path | None, out: Path | None, mean: bool, where: torch.device
) -> Iterator[str]:
    """What does without probes: writes the encoder, or features of a shard set; says what was written."""
    if export is not None:
        yield f"written: {', '.join(map(str, export_encoder(saved, run, export, mean)))}"
    if out is not None and data is not None:
        with data:
            images, values = write_features(saved, data, out, precision.choose("auto", where), where)
        yield f"written: {out}, {images:,} images with {values:,} features each"


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    compared: options.Compared = None,
    probes: Annotated[str, typer.Option("--probe", help="linear, knn, or several with commas.")] = "linear",
    run: Annotated[str | None, typer.Option(help="A run's name or path.", show_default="the latest")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A shard set: a path, NAME for data/NAME, or a URL.", show_default="what the run was trained on"),
    ] = None,
    cache_dir: CacheDir = None,
    cache_gb: CacheGb = None,
    gpus: Annotated[int | None, typer.Option(help="0 is the CPU.", show_default="one if there is one")] = None,
    curve: Annotated[bool, typer.Option("--curve", help="Draw the training curve into the run instead.")] = False,
    imported: Annotated[
        Path | None, typer.Option("--import-amdim-public", help="A file of amdim-public to make a run of.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="The run that an import makes.")] = None,
    segments: Annotated[bool, typer.Option("--segment", help="Measure and draw the mixture's segmentation instead.")] = False,
    last: Annotated[
        bool, typer.Option("--last-weights", help="The last weights of a run with --ema, not their average.")
    ] = False,
    export: options.Export = None,
    features_out: options.FeaturesOut = None,
    compare: options.Compare = False,
    report: options.Report = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    console = make_console()
    check_positive({"--cache-gb": cache_gb})
    if out is not None and imported is None:
        raise UsageError("--out: says where an import goes; give --import-amdim-public FILE with it")
    if imported is not None:
        import_original(imported, out, console)
        return
    if compare or compared:
        table, picture = compare_runs(options.runs_to_compare(compare, compared))
        console.print(table)
        console.print(f"picture: {picture}")
        return
    if report:
        directory = runs.run_path(run) if run is not None else latest_record()
        find = partial(find_set, cache_dir=cache_dir, cache_gb=cache_gb)
        written = write_report(directory, data, place(gpus).device, last, find)
        console.print(f"report: {written}", soft_wrap=True, highlight=False)
        return
    names = [name.strip() for name in probes.split(",")]
    if unknown := [name for name in names if name not in PROBES]:
        raise UsageError(f"--probe {unknown[0]}: there is no such probe; there are {', '.join(PROBES)}")
    directory = runs.run_path(run) if run is not None else runs.latest_run()
    if curve:
        console.print(f"training curve: {draw_curve(directory)}")
        return
    saved = runs.newest_checkpoint(directory)
    mean = not last and bool(saved.trainer.get("average"))
    saved = averaged(saved) if mean else saved
    if export is not None or features_out is not None:
        source = find_set(runs.data_of(saved, data), cache_dir, cache_gb) if features_out is not None else None
        for words in use(saved, directory, source, export, features_out, mean, place(gpus).device):
            console.print(words, soft_wrap=True, highlight=False)
        return
    where = find_set(runs.data_of(saved, data), cache_dir, cache_gb)
    if segments:
        measure_segments(saved, where, directory, place(gpus).device, console)
        return
    started = time.perf_counter()
    features = extract(saved, where, place(gpus).device)
    shared = time.perf_counter() - started
    results = []
    for name in names:
        started = time.perf_counter()
        result = {"probe": name, "data": str(where), "run": str(directory), "step": saved.trainer["step"]}
        result |= {"n_test": len(features.test[0].y), "averaged": mean, **probe(name, features)}
        result["seconds"] = round(shared + time.perf_counter() - started, 2)
        write(directory / f"eval-{name}.json", result)
        results.append(result)
    whose = ", averaged weights" if mean else ""
    console.print(f"{directory}, step {saved.trainer['step']:,}{whose}, on {where}: {results[0]['n_test']:,} test images")
    show(results, console)


if __name__ == "__main__":
    run_app(app, "eval.py")
