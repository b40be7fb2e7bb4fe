"""The paper's protocol: classifiers on frozen r1 of augmented training views, anew in every epoch.

As in amdim-public: both classifiers at once, Adam as in pretraining, the rate times 0.2 at two milestones, nothing to choose.
Baselines are trained beside them, on the same views.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor, nn

from amdim.engine.precision import Precision
from amdim.evaluation.extract_features import EvalData
from amdim.evaluation.feature_extractors import FeatureExtractor
from amdim.evaluation.probes import supervised
from amdim.evaluation.probes.classification_metrics import Classifier
from amdim.model.probes import LinearProbe, MLPProbe, probe_loss
from amdim.pipeline import TwoViewLoader

MODULES: dict[str, type[nn.Module]] = {"linear": LinearProbe, "mlp": MLPProbe}
RATE, BETAS, DECAY, WARMUP = 2e-4, (0.8, 0.999), 1e-5, 500  # updates of warm-up
SEED = 0


class Length(NamedTuple):
    """Epochs, and the milestones as parts of them."""

    epochs: float
    milestones: tuple[float, float]


SMALL_IMAGES = Length(120, (80 / 120, 110 / 120))
IMAGENET = Length(30, (15 / 30, 25 / 30))
LENGTHS = {"cifar10": SMALL_IMAGES, "cifar100": SMALL_IMAGES, "stl10": SMALL_IMAGES, "places205": Length(15, (7 / 15, 12 / 15))}


def length(data: str, epochs: float | None) -> Length:
    """The original's for a data set by its name, ImageNet's for others; the milestones move with the epochs."""
    found = LENGTHS.get(data, IMAGENET)
    return found._replace(epochs=epochs or found.epochs)


class Beside(nn.Module):
    """Classifiers of each contender's features, by (contender, probe); the mean losses of all are added up.

    What one of them draws does not depend on the others, so that baselines may be left out.
    """

    def __init__(self, contenders: list[FeatureExtractor], probes: list[str], classes: int) -> None:
        super().__init__()
        self.contenders, self.probes, self.step = contenders, probes, 0
        self.of = nn.ModuleDict()
        for each in contenders:
            for name in probes:
                draw_for(each, name, "weights")
                self.of[f"{each.name} {name}"] = MODULES[name](each.width, classes)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        losses, y = [], image_by_image(y)
        for each in self.contenders:
            with torch.no_grad():
                features = image_by_image(each.function(x))
            for name in self.probes:
                draw_for(each, name, self.step)
                losses.append(probe_loss(self.of[f"{each.name} {name}"](features), y))
        self.step += 1
        return torch.stack(losses).sum()

    def classifiers(self) -> dict[tuple[str, str], Classifier]:
        self.eval()
        return {(each.name, name): self.of[f"{each.name} {name}"] for each in self.contenders for name in self.probes}


def draw_for(contender: FeatureExtractor, probe: str, what: str | int) -> None:
    """Seeds torch's generator, on every rank alike."""
    torch.manual_seed(crc32(f"{SEED} {contender.name} {probe} {what}".encode()))


def image_by_image(rows: Tensor) -> Tensor:
    """Rows (2B, ...) of one view after the other, with each image's two side by side: dropout is drawn in the order of ranks."""
    return rows.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)


def train_paper(
    images: EvalData,
    loader: TwoViewLoader,
    contenders: list[FeatureExtractor],
    probes: list[str],
    classes: int,
    lasts: Length,
    precision: Precision,
) -> dict[tuple[str, str], Classifier]:
    """Trains ``probes`` (linear, mlp) on each contender's features; classifiers by contender and probe."""
    model = Beside(contenders, probes, classes).to(loader.device)
    optimizer = torch.optim.Adam(model.parameters(), RATE, BETAS, weight_decay=DECAY, fused=True)
    rates = partial(schedule, lasts.milestones)
    supervised.train(model, optimizer, loader, lasts.epochs, rates, precision, images, " and ".join(probes))
    return model.classifiers()


def schedule(milestones: tuple[float, float], step: int, steps: int) -> float:
    """The factor of RATE in update ``step`` (from 0) of ``steps``; a short training has a short warm-up."""
    rise = min(1.0, (step + 1) / min(WARMUP, max(1, steps // 10)))
    return rise * 0.2 ** sum(step >= milestone * steps for milestone in milestones)
