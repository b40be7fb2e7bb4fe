"""What `eval.py --probe` is asked for, and whether it can be done: before hours of work, and before ranks are started."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from amdim.engine.checkpoint import Checkpoint
from amdim.errors import UsageError, UserError, warn
from amdim.evaluation import baseline_cache, results
from amdim.evaluation.feature_extractors import BASELINES, ENCODER, RAW
from amdim.evaluation.probes import finetune
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.sample_store import SampleStore

PROBES = ("linear", "mlp", "knn", "finetune")
PROTOCOLS = ("cached", "paper")
NAMED = 12  # classes in a warning
WHOLE = "1"  # the fraction of the labels that is all of them


class Plan(NamedTuple):
    """The options of ``--probe``, by their names, and what they mean for each probe."""

    probes: list[str]
    protocol: str
    views: int
    fractions: tuple[str, ...]
    epochs: float | None
    finetune_rate: float
    baselines: bool
    keep: bool
    batch: int | None
    split: str = "val"

    def tasks(self) -> list[Task]:
        """Every training of a probe."""
        contenders = (ENCODER, *BASELINES) if self.baselines else (ENCODER,)
        tasks = [Task(each, probe, part) for probe in self.probes for each in contenders for part in (WHOLE, *self.fractions)]
        return [task for task in tasks if (task.contender, task.probe) != (RAW, "finetune")]  # which has nothing to tune

    def way(self, probe: str) -> str:
        """How a probe is trained: "cached" features, or in step as "paper" and "finetune" are."""
        return probe if probe == "finetune" else "cached" if probe == "knn" else self.protocol

    def views_of(self, probe: str) -> int:
        """Augmented views of each image that are extracted for a probe: neighbours are looked for among centred ones."""
        return self.views if probe != "knn" and self.way(probe) == "cached" else 0

    def decides(self, probe: str) -> list[object]:
        """What of this plan decides a probe's numbers."""
        way = self.way(probe)
        longer = self.epochs if way != "cached" or probe == "mlp" else None
        return [way, self.views_of(probe), longer, self.finetune_rate if way == "finetune" else None]


class Subject(NamedTuple):
    """What is probed: a checkpoint of a run, on a shard set; ``averaged`` says whose weights they are."""

    saved: Checkpoint
    run: Path
    data: ShardedDataset
    averaged: bool = False


class Task(NamedTuple):
    """One training of a probe."""

    contender: str
    probe: str
    fraction: str


def make_plan(
    probes: str,
    protocol: str,
    views: int | None,
    fraction: str | None,
    epochs: float | None,
    finetune_rate: float | None,
    baselines: bool,
    keep: bool,
    batch: int | None,
    split: str = "val",
) -> Plan:
    """From the command's options; None is one that was not given.

    Raises:
        UsageError: one is no such thing, or of no use to any of the probes.
    """
    rate = finetune.RATE if finetune_rate is None else finetune_rate
    how = parse_probes(probes), parse_protocol(protocol), views or 0, parse_fractions(fraction), epochs, rate
    plan = Plan(*how, baselines, keep, batch, split)
    ways = {plan.way(probe) for probe in plan.probes}
    augmented, stepped = any(map(plan.views_of, plan.probes)), bool(ways - {"cached"})
    for option, given, used, who in (
        ("--protocol", protocol if protocol != "cached" else None, protocol in ways, "linear and mlp"),
        ("--views", views, augmented, "linear and mlp with --protocol cached"),
        ("--probe-epochs", epochs, stepped or "mlp" in plan.probes, "mlp, finetune and --protocol paper"),
        ("--batch-size", batch, stepped, "finetune and --protocol paper"),
        ("--finetune-lr", finetune_rate, "finetune" in ways, "finetune"),
    ):
        if given and not used:
            raise UsageError(f"{option} {given}: is of no use to --probe {','.join(plan.probes)}, only to {who}; leave it out")
    return plan


def parse_probes(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in PROBES]:
        raise UsageError(f"--probe {unknown[0]}: there is no such probe; there are {', '.join(PROBES)}")
    return names


def parse_protocol(text: str) -> str:
    if text not in PROTOCOLS:
        raise UsageError(f"--protocol {text}: give {' or '.join(PROTOCOLS)}")
    return text


def parse_fractions(text: str | None) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",")] if text else []
    for part in parts:
        try:
            fits = 0 < float(part) < 1
        except ValueError:
            fits = False
        if not fits:
            raise UsageError(f"--fraction {part}: give parts of the training labels between 0 and 1, as in 0.01,0.1")
    return tuple(dict.fromkeys(f"{float(part):g}" for part in parts))


def check(subject: Subject, plan: Plan) -> None:
    """
    Raises:
        UsageError: the data have no labels to probe with.
        UserError: the results could not be written.
    """
    check_writable(subject.run, plan.probes)
    check_labels(subject.data, plan.split)


def check_writable(run: Path, probes: list[str]) -> None:
    for path in [*(results.file_of(run, probe) for probe in probes), run / baseline_cache.FILE]:
        if path.is_dir():
            raise UserError(f"{path}: is a directory, and the results go to a file of that name; move it away")
    try:
        run.mkdir(parents=True, exist_ok=True)  # of a checkpoint from elsewhere
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise UserError(f"{run}: results cannot be written there ({why}); make it writable, or copy the run") from error


def check_labels(data: ShardedDataset, tested: str) -> None:
    manifest = data.manifest
    for split in ("train", tested):
        if split not in manifest.splits:
            there = ", ".join(manifest.splits)
            raise UsageError(f"{data}: has no split '{split}', which a probe needs ({there}); name a set that has with --data")
        if not manifest.splits[split].labelled:
            raise UsageError(f"{data}: split '{split}' has no labels, which a probe needs; probe on a labelled set with --data")
    if (count := len(labels_of(data, "train"))) < 2:
        raise UsageError(
            f"{data}: has training images of {count} class, and a probe tells 2 or more apart; name another set with --data"
        )


def warn_of_classes(data: ShardedDataset, split: str) -> None:
    """Warn of classes that a probe was not trained on, or not tested on: an accuracy does not show them."""
    train, test = (labels_of(data, each) for each in ("train", split))
    if unseen := sorted(test - train):
        classes = f"of {len(test)} classes with test images, {len(unseen)} have none to train on ({named(data, unseen)})"
        warn(f"{data}: {classes} and count as wrong")
    if untested := sorted(train - test):
        classes = f"of {len(train)} classes with training images, {len(untested)} have none in {split} ({named(data, untested)})"
        only = f"; ONE CLASS ALONE IS TESTED, {named(data, sorted(test))}: such accuracies say nothing" if len(test) == 1 else ""
        warn(f"{data}: {classes}{only}")


def named(data: ShardedDataset, labels: list[int]) -> str:
    return ", ".join(data.manifest.classes[i] for i in labels[:NAMED]) + (", …" if len(labels) > NAMED else "")


def labels_of(data: ShardedDataset, split: str) -> set[int]:
    return set(SampleStore(data, [split]).labels.tolist()) - {-1}
