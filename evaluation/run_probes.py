"""`eval.py --probe`: all ranks look at the images, probes are trained on what they saw, results are written.

Baselines that were computed before for the same images, settings and probe are read from beside the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, lru_cache, partial

import torch
from rich.console import Console
from torch import Tensor

from amdim.engine import precision
from amdim.engine.distributed.ddp import from_all, from_first
from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.distributed.process_group import joined
from amdim.engine.distributed.rank_coordinator import RankCoordinator
from amdim.engine.monitor import memory
from amdim.errors import UserError
from amdim.evaluation import results
from amdim.evaluation.baseline_cache import BaselineCache
from amdim.evaluation.extract_features import EvalData, extract, key
from amdim.evaluation.feature_cache import FeatureCache
from amdim.evaluation.feature_extractors import (
    BASELINES,
    ENCODER,
    RANDOM,
    RAW,
    FeatureExtractor,
    contender,
    identity,
    trained,
    untrained,
    weights_of,
)
from amdim.evaluation.features import LabeledFeatures, labelled
from amdim.evaluation.probe_tasks import WHOLE, Plan, Subject, Task, warn_of_classes
from amdim.evaluation.probes import finetune, paper_protocol, supervised
from amdim.evaluation.probes.classification_metrics import Fitted, Scores, score
from amdim.evaluation.probes.knn import train_knn
from amdim.evaluation.probes.linear import train_linear
from amdim.evaluation.probes.mlp import train_mlp
from amdim.evaluation.probes.stratified_subset import stratified_subset
from amdim.evaluation.results import Result
from amdim.pipeline import Recipe, TwoViewLoader
from amdim.pipeline.augment.recipe_file import recipe_of
from amdim.pipeline.dali import cores

VERSION = 5  # of what probes compute: baselines of another one are computed anew

TRAINERS: dict[str, Callable[..., Fitted]] = {"linear": train_linear, "mlp": train_mlp, "knn": train_knn}


def probe(subject: Subject, plan: Plan, where: DistEnv, console: Console, timeout: float) -> None:
    """Trains and tests what is planned; rank 0 prints a table and writes the results into the run."""
    explained = partial(memory.explained, memory.elsewhere(where.device))
    with subject.data, explained():
        with joined(where, timeout) as peers, explained():  # of several ranks an error ends here
            probing = Probing(subject, plan, where, peers, console)
            with probing.told_if_it_fails():
                probing.check_alike()
                probing.check_parts()
                probing.look()
                if where.world == 1:  # seconds, before what may take hours, and fail
                    probing.train_on_features()
                probing.train_in_step()
        if where.rank == 0:
            if where.world > 1:  # the others are not kept waiting for what needs no images, and leave their cores
                torch.set_num_threads(cores())
                with probing.told_if_it_fails():
                    probing.train_on_features()
            probing.finish()
            warn_of_classes(subject.data, plan.split)


def longer(epochs: float, share: float) -> float:
    """Epochs with a share of the labelled images: fewer updates, but not in proportion."""
    return epochs / share**0.5


class Probing:
    """One evaluation: what is to be done, features by contender and split, scores by task."""

    def __init__(self, subject: Subject, plan: Plan, where: DistEnv, peers: RankCoordinator, console: Console) -> None:
        self.subject, self.plan, self.device, self.console = subject, plan, where.device, console
        self.files = FeatureCache(subject.run / "features", plan.keep)
        self.images = EvalData(subject.data, recipe_of(subject.saved.config), where, peers, console)
        self.precision = precision.choose("auto", where.device)
        self.manifest = subject.data.manifest
        self.contender = lru_cache(lambda name: contender(name, subject.saved, self.precision, self.device))
        self.kept, self.began = BaselineCache(subject.run), time.perf_counter()
        self.batch: int = plan.batch or subject.saved.config["settings"]["batch"]
        self.features: dict[tuple[str, str], LabeledFeatures] = {}
        self.scores: dict[Task, Scores] = {}
        self.results: dict[str, Result] = {}
        self.chosen: dict[Task, dict[str, float]] = {}
        self.marked = lru_cache(self.mark)
        self.seconds = dict.fromkeys(plan.probes, 0.0)

    @cached_property
    def missing(self) -> list[Task]:
        """What is to be trained: all of the encoder's, and of the baselines' what is not kept."""
        tasks = self.plan.tasks()
        found: list[Task] = from_first(
            [task for task in tasks if task.contender == ENCODER or self.key(task) not in self.kept.found]
        )
        return found

    @cached_property
    def weights(self) -> str:
        return weights_of(self.subject.saved)

    @cached_property
    def known(self) -> Tensor:
        """(C,), the classes that there are training images of."""
        known = torch.zeros(len(self.manifest.classes), dtype=torch.bool)
        labels = self.images.labels("train")
        known[labels[labels >= 0]] = True
        return known

    @cached_property
    def labelled(self) -> int:
        """Training images that have a label."""
        return int((self.images.labels("train") >= 0).sum())

    def images_of(self, part: str) -> int:
        """Training images of a fraction of the labels; of rare classes there may be fewer than it says."""
        return int(self.marked(part).sum())

    def share(self, part: str) -> float:
        return self.images_of(part) / self.labelled

    def key(self, task: Task) -> str:
        """What decides a task's numbers."""
        seen = [self.images.identity(split) for split in ("train", self.plan.split)]
        whose = identity(task.contender, self.subject.saved)
        how = [*self.plan.decides(task.probe), *self.stepped(task)]
        return key(VERSION, whose, str(self.precision.dtype), seen, task.probe, task.fraction, how)

    def stepped(self, task: Task) -> list[object]:
        """What else decides what is trained in step: the batch as it will be, and the paper's length, a data set's own."""
        if self.plan.way(task.probe) == "cached":
            return []
        batch = supervised.batch_for(self.images, self.images_of(task.fraction), self.batch)
        return [batch, paper_protocol.length(self.manifest.name, self.plan.epochs)]

    def doing(self, *ways: str) -> list[Task]:
        """What is to be trained in these ways."""
        return [task for task in self.missing if self.plan.way(task.probe) in ways]

    def check_alike(self) -> None:
        """
        Raises:
            UserError: ranks have found different checkpoints, as of a run that is being trained, or compute differently.
        """
        images = [self.images.identity(split) for split in ("train", self.plan.split)]
        found = from_all((self.subject.saved.trainer["step"], self.weights, str(self.precision.dtype), images))
        if any(each != found[0] for each in found):
            seen = " and ".join(f"{step:,}" for step in sorted({step for step, *_ in found}))
            raise UserError(
                f"{self.subject.run}: its ranks do not see the same checkpoint (step {seen}), images and precision; "
                "name the checkpoint with --checkpoint"
            )

    def check_parts(self) -> None:
        """
        Raises:
            UsageError: a part of the labels cannot be trained on in step: said before hours of work.
        """
        for part in dict.fromkeys(task.fraction for task in self.doing("paper", "finetune")):
            self.training_views(part, self.images.recipe)

    def look(self) -> None:
        """One pass over each split for all contenders whose features are to be read."""
        views = max((self.plan.views_of(task.probe) for task in self.missing), default=0)
        for split, count, tasks in (
            ("train", views, self.doing("cached", "finetune")),
            (self.plan.split, 0, self.doing("cached", "paper")),
        ):
            contenders, labels = self.contenders(tasks), self.images.labels(split)
            for each, x in zip(contenders, extract(self.images, split, contenders, count, self.files), strict=False):
                self.features[each.name, split] = labelled(x, labels)  # on rank 0
        self.shared = time.perf_counter() - self.began

    def contenders(self, tasks: list[Task]) -> list[FeatureExtractor]:
        names = {task.contender for task in tasks}
        return [self.contender(name) for name in (ENCODER, *BASELINES) if name in names]

    def train_in_step(self) -> None:
        """What needs new views in every epoch, and all ranks."""
        for part in (WHOLE, *self.plan.fractions):
            if tasks := [task for task in self.doing("paper") if task.fraction == part]:
                self.train_paper(tasks, part)
                self.keep()
        for task in self.doing("finetune"):
            self.fine_tune(task)
            self.keep()

    def train_paper(self, tasks: list[Task], part: str) -> None:
        """All contenders and probes at once, on the same views."""
        began, probes = time.perf_counter(), list(dict.fromkeys(task.probe for task in tasks))
        lasts = paper_protocol.length(self.manifest.name, self.plan.epochs)
        lasts = lasts._replace(epochs=longer(lasts.epochs, self.share(part)))
        loader, classes = self.training_views(part, self.images.recipe), len(self.manifest.classes)
        with self.explained(loader):
            found = paper_protocol.train_paper(
                self.images, loader, self.contenders(tasks), probes, classes, lasts, self.precision
            )
        for task in tasks:
            if self.images.where.rank == 0:
                test = self.features[task.contender, self.plan.split]
                self.scores[task] = score(found[task.contender, task.probe], test, classes, self.device, self.known)
            self.chosen[task] = {"epochs": lasts.epochs, "batch": loader.batch}
        for probe in probes:
            self.seconds[probe] += time.perf_counter() - began

    def fine_tune(self, task: Task) -> None:
        began, classes, saved = time.perf_counter(), len(self.manifest.classes), self.subject.saved
        encoder = trained(saved) if task.contender == ENCODER else untrained(saved)
        epochs = longer(self.plan.epochs or finetune.EPOCHS, self.share(task.fraction))
        settings = (epochs, self.plan.finetune_rate, self.precision)
        loader = self.training_views(task.fraction, finetune.gentle(self.images.recipe))
        with self.explained(loader):
            model = finetune.fine_tune(self.images, loader, encoder, classes, *settings, self.shown(task))
        self.scores[task] = finetune.test(self.images, model, classes, self.precision, self.known, self.plan.split)
        self.chosen[task] = {"epochs": epochs, "lr": self.plan.finetune_rate, "batch": loader.batch}
        self.seconds[task.probe] += time.perf_counter() - began

    def shown(self, task: Task) -> LabeledFeatures | None:
        """Rank 0's features of the centred views that a fine-tuning begins with."""
        train = self.features.get((task.contender, "train"))
        return train and train.only(self.chosen_few(train.labels, task.fraction)).centred()

    def training_views(self, part: str, recipe: Recipe) -> TwoViewLoader:
        return supervised.training_views(self.images, recipe, self.marked(part), self.batch)

    def explained(self, loader: TwoViewLoader) -> AbstractContextManager[None]:
        """Has a shortage of memory in training end in one line, with the batch that may do."""
        less = memory.smaller_batch(loader.batch, self.images.where.world)
        return memory.explained(less or memory.elsewhere(self.device))

    def mark(self, part: str) -> Tensor:
        """Which training images are trained on with a fraction of the labels: a mask (n,)."""
        y = self.images.labels("train")
        rows = (y >= 0).nonzero().flatten()
        mask = torch.zeros(len(y), dtype=torch.bool)
        mask[rows[self.chosen_few(y[rows], part)]] = True
        return mask

    def chosen_few(self, labels: Tensor, part: str) -> Tensor:
        """Positions of a fraction of the labelled images."""
        return torch.arange(len(labels)) if part == WHOLE else stratified_subset(labels, float(part))

    def train_on_features(self) -> None:
        """What needs no images any more, and one rank."""
        classes = len(self.manifest.classes)
        for task in self.doing("cached"):
            began, train = time.perf_counter(), self.features[task.contender, "train"]
            more = {"epochs": self.plan.epochs} if task.probe == "mlp" else {}
            shown = train.only(self.chosen_few(train.labels, task.fraction))
            fitted = TRAINERS[task.probe](shown, classes, self.device, **more)
            scores = score(fitted.classify, self.features[task.contender, self.plan.split], classes, self.device, self.known)
            # Neighbours seldom name five classes: the fifth would be one of those that got no vote.
            self.scores[task] = scores._replace(top5=None) if task.probe == "knn" else scores
            self.chosen[task] = fitted.chosen
            self.seconds[task.probe] += time.perf_counter() - began
            self.keep()

    def keep(self) -> None:
        """On rank 0 writes the results of probes whose encoder is done, and baselines so far: what is still to come may fail."""
        if self.images.where.rank:
            return
        self.kept.put({self.key(task): scores.top1 for task, scores in self.scores.items() if task.contender != ENCODER})
        whole = [task for task in self.missing if (task.contender, task.fraction) == (ENCODER, WHOLE)]
        left = {task.probe for task in whole if task not in self.scores}
        for probe in self.plan.probes:
            if probe not in left and self.results.get(probe) != (found := self.result(probe)):
                self.results[probe] = found
                results.write(results.file_of(self.subject.run, probe, self.plan.split), found)

    def finish(self) -> None:
        """On rank 0 shows the results that there are, and has TensorBoard show them."""
        if found := [self.results[probe] for probe in self.plan.probes if probe in self.results]:
            results.announce(found, self.console)
            results.write_board(self.subject.run, found, self.subject.saved.config["data"])

    @contextmanager
    def told_if_it_fails(self) -> Iterator[None]:
        """What an error, or Ctrl-C, leaves of hours of work is shown before it ends them."""
        try:
            yield
        except BaseException:
            self.finish()
            raise

    def result(self, probe: str) -> Result:
        whole = Task(ENCODER, probe, WHOLE)
        scores, subject = self.scores[whole], self.subject
        return {
            "probe": probe,
            "data": str(subject.data),
            "run": str(subject.run),
            "checkpoint": str(subject.saved.path),
            "step": subject.saved.trainer["step"],
            "split": self.plan.split,
            "n_test": scores.n,
            "test_images": key(*(shard.sha256 for shard in self.manifest.splits[self.plan.split].shards)),
            "unseen": [name for name, known in zip(self.manifest.classes, self.known.tolist(), strict=True) if not known],
            "top1": scores.top1,
            "top1_random_init": self.top1(Task(RANDOM, probe, WHOLE)),
            "top1_raw_pixels": self.top1(Task(RAW, probe, WHOLE)),
            "top5": scores.top5,
            "interval": scores.interval,
            "per_class": scores.per_class,
            "confusion": scores.confusion,
            "confused": [each._asdict() for each in scores.confused],
            "classes": self.manifest.classes,
            "fractions": {part: self.top1(Task(ENCODER, probe, part)) for part in self.plan.fractions},
            "fractions_random_init": {part: self.top1(Task(RANDOM, probe, part)) for part in self.plan.fractions},
            "fractions_raw_pixels": {part: self.top1(Task(RAW, probe, part)) for part in self.plan.fractions},
            "fractions_images": {part: self.images_of(part) for part in self.plan.fractions},
            "n_train": self.labelled,
            "protocol": self.plan.way(probe),
            "views": self.plan.views_of(probe),
            "chosen": self.chosen[whole],
            "averaged": subject.averaged,
            "weights": self.weights,
            "seconds": round(self.shared + self.seconds[probe], 2),
        }

    def top1(self, task: Task) -> float | None:
        """Of this evaluation or an earlier one; None where it is not asked for."""
        if task in self.scores:
            return self.scores[task].top1
        return self.kept.found.get(self.key(task)) if task in self.plan.tasks() else None
