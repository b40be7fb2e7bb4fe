"""The MLP probe on features that were extracted once: one hidden layer, trained by AdamW with a cosine schedule.

It sees features along their principal axes, but for those along which they hardly vary. How small a variance is still blown up to
1 is chosen on held-out training images, by shorter trainings: more is more to learn from, and more noise. With few
images noise is most of it, and axes are best left nearly as long as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from amdim.evaluation.features import RUN, Function, LabeledFeatures, Scaler
from amdim.evaluation.probes.classification_metrics import Classifier, Fitted, score
from amdim.evaluation.probes.stratified_subset import HELD_OUT, held_out
from amdim.evaluation.probes.whitening import Axes, survey
from amdim.model.probes import MLPProbe, probe_loss

FLOORS = (10.0, 1.0, 1e-1, 1e-2, 1e-3)  # of variances, where the features' mean variance is 1
LEFT_OUT = 1e-2  # of the floor: variances below that stay below a hundredth
SHORTER = 4  # times, what chooses
RATE, DECAY = 1e-3, 1e-2
BATCH = 256
EPOCHS = 20
LEAST = 300  # steps, however few the images
BLOCK = 8192  # samples that are read at a time and shuffled
SEED = 0


def train_mlp(train: LabeledFeatures, classes: int, device: torch.device, epochs: float | None = None) -> Fitted:
    """Trains on ``train`` with the floor that does best on the parts of it that were held out."""
    scale, axes = survey(train, device)
    forms: dict[float, Function] = {floor: partial(whitened, scale, axes.above(LEFT_OUT * floor), floor) for floor in FLOORS}
    floor = choose_floor(train, classes, forms, device, epochs)
    return Fitted(fit(train, classes, forms[floor], device, steps(train, epochs)), {"floor": floor})


def whitened(scale: Scaler, axes: Axes, floor: float, x: Tensor) -> Tensor:
    return axes.whiten(scale(x), floor)


def choose_floor(
    train: LabeledFeatures, classes: int, forms: dict[float, Function], device: torch.device, epochs: float | None
) -> float:
    """The first floor beyond which held-out images lose; smaller ones are not tried."""
    if len(train.rows) < 2 * HELD_OUT:  # too few to choose by
        return FLOORS[0]
    folds = [(train.only(~held), train.only(held).centred()) for held in held_out(train.labels)]
    whole = steps(folds[0][0], epochs)
    total = min(whole, max(LEAST, whole // SHORTER))
    best, chosen = -1.0, FLOORS[0]
    for floor, form in forms.items():
        probes = [(fit(shown, classes, form, device, total), unseen) for shown, unseen in folds]
        right = sum(score(probe, unseen, classes, device).top1 for probe, unseen in probes)
        if right < best:
            break
        best, chosen = right, chosen if right == best else floor
    return chosen


def fit(train: LabeledFeatures, classes: int, prepare: Function, device: torch.device, total: int) -> Classifier:
    """A probe trained on all views of ``train``, prepared, for ``total`` steps; it classifies with the statistics of training."""
    torch.manual_seed(SEED)
    width = prepare(train.take(train.places[:1], device)[0]).shape[1]
    probe = MLPProbe(width, classes).to(device)
    optimizer = torch.optim.AdamW(probe.parameters(), RATE, weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total)))
    for _, (x, y) in zip(range(total), batches(train, prepare, device), strict=False):
        loss = probe_loss(probe(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    probe.eval()
    return lambda x: probe(prepare(x))


def steps(train: LabeledFeatures, epochs: float | None) -> int:
    asked = math.ceil((epochs or EPOCHS) * train.samples / BATCH)
    return asked if epochs else max(LEAST, asked)


def batches(train: LabeledFeatures, prepare: Function, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: blocks of runs from all over the file, shuffled. An image comes once a view in an epoch.

    So a batch of a set that is sorted by class has many classes, and a file is still read some hundred kilobytes at a time.
    """
    generator = torch.Generator().manual_seed(SEED)
    runs = train.places.split(RUN)
    while True:
        drawn = torch.cat([runs[number] for number in torch.randperm(len(runs), generator=generator).tolist()])
        for places in drawn.split(BLOCK):
            x, y = train.take(places, device)
            order = torch.randperm(len(y), generator=generator).to(device)
            for batch in order.tensor_split(math.ceil(len(y) / BATCH)):  # of nearly equal sizes
                if len(batch) > 1:  # batch normalisation needs two
                    yield prepare(x[batch]), y[batch]
