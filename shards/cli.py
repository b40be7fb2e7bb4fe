"""The command line of the shard sets: ``python -m shards build|verify|info|preview``."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from amdim.errors import UsageError, UserError, run_app
from amdim.shards import build as builder
from amdim.shards import build_report, dask_workers, manifest
from amdim.shards import verify as verification
from amdim.shards.atomic import atomic
from amdim.shards.contact_sheet import contact_sheet
from amdim.shards.index_existing import adopt
from amdim.shards.sources import registry, webdataset
from amdim.shards.sources.registry import Options
from amdim.shards.worker_pool import Team


def _given(text: str) -> Path:
    """An empty name would be the current directory."""
    if not text.strip():
        raise typer.BadParameter("is empty; give the directory that holds the images")
    return Path(text)


app = typer.Typer(help="Image collections to WebDataset shards.", add_completion=False, pretty_exceptions_enable=False)
console = Console()
SetDirectory = Annotated[Path, typer.Argument(help="Directory of a shard set, such as data/shapes.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def build(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(registry.SOURCES)}.")],
    src: Annotated[Path | None, typer.Option(parser=_given, help="Where the images are.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the set goes; default data/NAME.")] = None,
    size: Annotated[int | None, typer.Option(min=0, help="Shrink shorter sides to this; 0 never. Default 256.")] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of JPEGs that are encoded anew. Default 90.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")] = None,
    dask: Annotated[str | None, typer.Option(help="Let a Dask cluster do the work: tcp://scheduler:8786.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the order, the validation split and drawn pictures.")] = 0,
    val: Annotated[float | None, typer.Option(min=0, max=0.9, help="Fraction set apart to validate. Default 0.1.")] = None,
    max_rejected: Annotated[float, typer.Option(min=0, max=1, help="Fraction of images that may be bad.")] = 0.01,
    unlabeled: Annotated[bool, typer.Option("--unlabeled", help="The images have no classes.")] = False,
    rewrite: Annotated[bool, typer.Option("--rewrite", help="webdataset: write new shards instead of an index.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a set that stands there.")] = False,
    debug: Debug = False,  # noqa: ARG001 - run_app looks for it
) -> None:
    """Turn a collection of images into a shard set."""
    if out == Path():
        raise UsageError("--out: give the set a directory of its own")
    src = src.resolve() if src and dask else src  # workers are elsewhere
    options = Options(seed, src, size, quality, val, unlabeled, rewrite)
    if name == "webdataset" and not rewrite:
        with _team(dask, workers) as team:
            _index(_to_index(options, out), team, max_rejected, overwrite)
        return
    out = out or Path("data") / name
    source = registry.source(name, options)
    if src and out.resolve().is_relative_to(src.resolve()):
        raise UsageError(f"{out}: lies inside --src {src}, whose images it would be listed among; choose another --out")
    total = sum(map(len, source.splits.values()))
    if source.note:
        build_report.say(console, source.note)
    with (
        _interruptible(name),
        _team(dask, workers) as team,
        build_report.progress(console, f"build {name}", total) as show,
    ):
        result = builder.build(
            source, out, seed=seed, workers=team, max_rejected=max_rejected, overwrite=overwrite, show=show, src=src
        )
    if result.fresh:
        build_report.built(console, result, source.ignored, str(out))
    else:
        build_report.say(
            console, f"{out}: already built with these options; build it again with `{manifest.how_to_make(out, overwrite=True)}`"
        )


@app.command()
def verify(
    directory: SetDirectory,
    fast: Annotated[bool, typer.Option("--fast", help="Compare checksums and indices, but decode nothing.")] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Check that a shard set is whole, and that DALI decodes all of it."""
    found = manifest.load(directory)
    total = sum(split.samples for split in found.splits.values())
    with build_report.progress(console, "verify", total) as show:
        faults = verification.verify(directory, found, fast=fast, workers=_cores(), show=show)
    for fault in faults:
        build_report.say(console, fault)
    if faults:
        raise UserError(
            f"{directory}: damaged, {len(faults)} faults; build it again with `{manifest.how_to_make(directory, overwrite=True)}`"
        )
    build_report.say(console, f"{directory}: whole, {total:,} samples")


@app.command()
def preview(
    directory: SetDirectory,
    out: Annotated[Path | None, typer.Option(help="Where the picture goes; default preview.png in the set.")] = None,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Draw a contact sheet: some images of each class."""
    out = out or directory / "preview.png"
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the picture is a PNG; give a name that ends in .png")
    with builder.full_disk(out), atomic(out) as file:
        contact_sheet(directory, manifest.load(directory)).save(file, "PNG")
    build_report.say(console, f"{out}: drawn")


@app.command()
def info(directory: SetDirectory, debug: Debug = False) -> None:  # noqa: ARG001
    """Say what a shard set holds."""
    build_report.described(console, directory, manifest.load(directory))


def _to_index(options: Options, out: Path | None) -> Path:
    """The directory whose tars are to be indexed where they are; raises UsageError for options that would change them."""
    if options.src is None:
        raise UsageError("webdataset needs --src, the directory that holds the tars")
    if options.val is not None or options.unlabeled:
        raise UsageError(
            f"--{'unlabeled' if options.unlabeled else 'val'}: tars are of the split that their names say; leave it out"
        )
    changing = [name for name in ("size", "quality") if getattr(options, name) is not None]
    if changing:
        raise UsageError(f"--{changing[0]} changes what is in the tars, which stay as they are; pass --rewrite too")
    if out and out.resolve() != options.src.resolve():
        raise UsageError(f"--out {out}: the index of existing tars lies beside them; leave --out out, or pass --rewrite too")
    return options.src


def _index(src: Path, team: int | Team, max_rejected: float, overwrite: bool) -> None:
    total = sum(map(len, webdataset.splits(src).values()))
    build_report.say(console, f"webdataset: {total:,} tars in {src}, which stay as they are")
    with _interruptible("webdataset"), build_report.progress(console, "index", total, "tars") as show:
        result, warning = adopt(src, workers=team, max_rejected=max_rejected, overwrite=overwrite, show=show)
    if not result.fresh:
        build_report.say(console, f"{src}: already indexed; index it again with `{manifest.how_to_make(src, overwrite=True)}`")
        return
    build_report.built(console, result, Counter(), str(src))
    if warning:
        build_report.say(console, warning)


@contextmanager
def _interruptible(name: str) -> Iterator[None]:
    """Ctrl-C leaves a set that the same command finishes, which the person at the keys should know."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{name}: interrupted; type the same again to go on", file=sys.stderr)
        raise


def _team(dask: str | None, workers: int | None) -> AbstractContextManager[int | Team]:
    return dask_workers.team(dask) if dask else nullcontext(workers or _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def main() -> NoReturn:
    """Run the command line; exits 0 done, 1 failed, 2 wrong usage."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary files go
    run_app(app, "shards")
