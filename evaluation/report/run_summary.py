"""What was trained and how fast, in words and figures."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch

from amdim.engine import runs
from amdim.engine.checkpoint import Checkpoint
from amdim.evaluation.report.probe_tables import is_stale
from amdim.evaluation.report.training_charts import begun
from amdim.evaluation.run_record import NAMES, RunRecord, top1
from amdim.model.encoder import Encoder
from amdim.shards.manifest import Manifest

Pair = tuple[str, str]


def tiles(record: RunRecord, results: dict[str, dict[str, Any]]) -> list[Pair]:
    """The few figures that one looks for first: a value and what it is. ``results`` are of the weights that are shown."""
    found = [(f"{record.step:,}", f"of {record.config['steps']:,} steps")]
    if record.images_per_s is not None:
        found.append((f"{record.images_per_s:,.0f}", "images/s, median"))
    if record.rows:
        found += [(duration(record.rows), "spent in steps"), (f"{record.rows[-1]['loss']:.2f}", "last loss, nats")]
    best = max(results.items(), key=lambda each: each[1]["top1"], default=None)
    if best:
        found.append((f"{best[1]['top1']:.1%}", f"top-1, {NAMES.get(best[0], best[0])} probe"))
    elif record.rows and record.rows[-1]["linear_top1"] is not None:
        found.append((f"{record.rows[-1]['linear_top1']:.1%}", "online linear probe"))
    return found


def duration(rows: list[dict[str, Any]]) -> str:
    """Of all logged steps, without set-up, checkpoints between log lines included."""
    seconds = [row.get("data_s", 0) + row.get("compute_s", 0) for row in rows]
    total = sum((row["step"] - before) * each for before, row, each in zip(begun(rows), rows, seconds, strict=True))
    return str(timedelta(seconds=round(total)))


def table(record: RunRecord, saved: Checkpoint | None, manifest: Manifest | None, averaged: bool) -> list[Pair]:
    """What was trained on what, and how."""
    config, settings = record.config, record.config["settings"]
    found = [("data", of_data(record, manifest)), ("preset", config["preset"]), ("encoder", of_encoder(config))]
    if record.data:  # what an imported file does not say is not said
        found += [
            ("views", f"recipe {settings['recipe']}"),
            ("length", length(record, manifest)),
            ("schedule", f"lr {settings['lr']:g}, {settings['warmup']} warm-up, {settings['schedule']}"),
            ("optimizer", f"{settings.get('optimizer', 'adam')}, weight decay {settings['weight_decay']:g}"),
            ("seed", str(config["seed"])),
        ]
    if settings.get("mixture"):
        found.append(("mixture", f"{settings['mixture']} features, mode {settings['mixture_mode']}"))
    if saved:
        found.append(("weights shown", f"step {saved.trainer['step']:,}{', moving average' if averaged else ''}"))
        machine = saved.trainer.get("machine", {})
        found += [(name, machine[name]) for name in ("processor", "precision", "ranks", "torch") if name in machine]
    if record.rows and "memory_gib" in record.rows[-1]:
        found.append(("memory", f"{record.rows[-1]['memory_gib']:.2f} GiB at its peak, a process"))
    return found


def of_data(record: RunRecord, manifest: Manifest | None) -> str:
    if manifest is None:
        return record.data or "unknown: the run was imported"
    splits = ", ".join(f"{each.samples:,} {name}" for name, each in manifest.splits.items())
    classes = f"{len(manifest.classes):,} classes" if manifest.classes else "no classes"
    return f"{record.data}: {splits}; {classes}"


def of_encoder(config: dict[str, Any]) -> str:
    encoder = runs.encoder_config(config)
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in Encoder(encoder).parameters())
    return f"{encoder.size} px, width {encoder.width}, R {encoder.embedding}, depth {encoder.depth}, {weights:,} weights"


def length(record: RunRecord, manifest: Manifest | None) -> str:
    batch = record.config["settings"]["batch"]
    words = f"{record.step:,} of {record.config['steps']:,} steps of {batch:,} images"
    epoch = record.rows[-1].get("epoch") if record.rows else None
    return words if epoch is None or manifest is None else f"{words}, {epoch:.2f} epochs"


def sentence(record: RunRecord, weights: str | None) -> str:
    """Under the title; ``weights`` are those that are shown."""
    found = []
    for probe, result in record.results.items():
        marks = record.marks(result)
        marks += ["other weights than these"] if not marks and is_stale(result, weights) else []
        said = f" ({', '.join(marks)})" if marks else ""
        found.append(f"{NAMES.get(probe, probe)} {top1(result)}{said}")
    probes = f" Probes: {'; '.join(found)}." if found else ""
    where = f" on {record.data}" if record.data else ""
    return f"AMDIM{where}, preset {record.config['preset']}, pretrained without labels.{probes}"
