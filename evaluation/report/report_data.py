"""Everything that a report shows of a run, as far as the run has come."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import torch

from amdim.engine import runs
from amdim.engine.checkpoint import Checkpoint, steps
from amdim.engine.monitor import memory
from amdim.engine.optim.ema import wanted
from amdim.errors import UserError, warn
from amdim.evaluation.feature_extractors import weights_of
from amdim.evaluation.report import probe_tables as probed
from amdim.evaluation.report import run_summary, training_charts
from amdim.evaluation.report.chart import Chart
from amdim.evaluation.report.embedder import open_embedder
from amdim.evaluation.report.image_subset import Subset, choose_parts, room
from amdim.evaluation.report.neighbours import Neighbours, neighbours
from amdim.evaluation.report.projection import Projection, projection
from amdim.evaluation.report.score_maps import Scores, score_maps
from amdim.evaluation.report.segment_maps import Segments, segments
from amdim.evaluation.report.view_pairs import Pairs, pairs
from amdim.evaluation.run_record import RunRecord, read_record
from amdim.pipeline.augment.recipe_file import recipe_of
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.remote_dataset import open_dataset
from amdim.shards import manifest as manifests
from amdim.shards.manifest import Manifest


@dataclass
class ReportData:
    """The parts of the page; what there is nothing to show of is empty or None, and ``notes`` say why."""

    title: str
    sentence: str
    tiles: list[tuple[str, str]]
    table: list[tuple[str, str]]
    charts: list[Chart]
    slowest: dict[str, list[training_charts.Span]]
    probes: list[probed.Probe]
    confusion: probed.Confusion | None
    per_class: probed.PerClass | None
    made: str
    run: str = ""  # as one types it
    notes: list[str] = field(default_factory=list)
    labelled: bool = True
    pairs: list[Pairs] = field(default_factory=list)
    neighbours: Neighbours | None = None
    scores: Scores | None = None
    projection: Projection | None = None
    segments: Segments | None = None


Find = Callable[[Path | str], ShardedDataset]


def collect(
    run: Path, data: str | None, device: torch.device, last_weights: bool = False, find: Find = open_dataset
) -> ReportData:
    """
    Args:
        run: its directory.
        data: a shard set to look at, by default the run's own.
        device: where the encoder looks.
        last_weights: whether to leave a moving average of the weights aside.
        find: opens a shard set.

    Raises:
        UsageError: there is no run, or ``data`` is no shard set.
    """
    record = read_record(run)
    saved, mean, damage = find_weights(run, last_weights)
    where, images = find_data(record, data, find)
    own = data is None or Path(str(where)).name == record.data  # by its name, as results are known: it may have moved
    page = of_record(record, saved, images.manifest if images and own else None, mean)
    page.run = shlex.quote(str(run))
    if not record.rows:
        page.notes.append("Nothing has been logged yet: curves begin with the first log line.")
    page.notes += [damage] if damage else []
    if images is None:
        whose = f"{where}: its images are not here" if record.data else "The run was imported, and has no images of its own"
        page.notes.append(f"{whose}, so none are shown; --data names a shard set to look at.")
        return page
    if not own:
        page.notes.append(f"The pictures are of {where}. It was trained on {record.data or 'other data'}.")
    try:
        with images, memory.explained(memory.elsewhere(device)):
            show(page, images, record, saved, run, device)
    except UserError as error:
        if data is not None:  # it was asked for
            raise
        warn(f"{error}; the report shows the rest")
        page.notes.append(f"{error}. What would follow of images is missing.")
    return page


def find_weights(run: Path, last: bool) -> tuple[Checkpoint | None, bool, str]:
    """The newest checkpoint, if there is one, whether its weights are averages, and what is wrong where none can be read."""
    try:
        return (*wanted(runs.newest_checkpoint(run), last), "") if steps(run / "checkpoints") else (None, False, "")
    except UserError as error:
        warn(f"{error}; the report shows the rest")
        return None, False, f"{error}."


def show(
    page: ReportData, images: ShardedDataset, record: RunRecord, saved: Checkpoint | None, run: Path, device: torch.device
) -> None:
    """What there is to see of some images."""
    gallery, queries = choose_parts(images)
    if not len(queries.rows) or not len(gallery.rows):
        page.notes.append(f"{images}: holds too few images to show any beside others.")
        return
    images.expect(iter(()), room(gallery, queries), 0)
    page.labelled = bool((gallery.labels >= 0).any() and (queries.labels >= 0).any())
    page.pairs = pairs(gallery, images.manifest, recipe_of(record.config))
    if saved is None and not steps(run / "checkpoints"):
        page.notes.append("There is no checkpoint yet: what the encoder makes of images is shown from the first on.")
    elif saved is not None:
        look(page, saved, run, images.manifest, (gallery, queries), device)


def find_data(record: RunRecord, data: str | None, find: Find) -> tuple[Path | str, ShardedDataset | None]:
    """The shard set that was asked for, or else the run's own if it is still there."""
    where = runs.data_path(data if data is not None else record.config["data"] or "nowhere")
    if data is None and isinstance(where, Path) and not (where / manifests.FILE).is_file():
        return where, None
    try:
        return where, find(where)
    except UserError:
        if data is None and isinstance(where, str):  # gone, or asks for credentials that are not here now
            return where, None
        raise


def of_record(record: RunRecord, saved: Checkpoint | None, manifest: Manifest | None, mean: bool) -> ReportData:
    """What can be said without looking at an image; ``manifest`` is of what it was trained on."""
    weights = weights_of(saved) if saved else None
    current = record.current(weights)
    fresh = {name: result for name, result in record.results.items() if not probed.is_stale(result, weights)}
    best = current or fresh or record.results
    return ReportData(
        title=record.name,
        sentence=run_summary.sentence(record, weights),
        tiles=run_summary.tiles(record, current),
        table=run_summary.table(record, saved, manifest, mean),
        charts=training_charts.charts(record.rows, record.config),
        slowest=training_charts.slowest(record.rows),
        probes=probed.probes(record.results, weights),
        confusion=probed.confusion(best, weights),
        per_class=probed.per_class(best, weights),
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )


def look(
    page: ReportData, saved: Checkpoint, run: Path, manifest: Manifest, parts: tuple[Subset, Subset], device: torch.device
) -> None:
    """Adds what the encoder makes of images."""
    eye, (gallery, queries) = open_embedder(saved, device), parts
    seen = eye.represent(gallery), eye.represent(queries)
    if not all(each.isfinite().all() for each in seen):
        page.notes.append(
            "The encoder's features are not finite numbers, so nothing is shown of them: train again at a lower rate."
        )
        return
    page.neighbours = neighbours(gallery, queries, seen, manifest, eye.recipe)
    page.scores = score_maps(eye, queries, manifest, saved.config["settings"])
    page.projection = projection(eye, queries, manifest)
    if saved.config["settings"].get("mixture"):
        page.segments = segments(eye, saved, gallery, queries, manifest, run)
