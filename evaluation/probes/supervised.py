"""Training on augmented views, all ranks in step, as pretraining does: what the paper's probes and fine-tuning share.

Shape letters: B images of this rank.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from amdim.engine.distributed.ddp import parallel
from amdim.engine.precision import Precision
from amdim.errors import UsageError, UserError
from amdim.evaluation.extract_features import SEED, EvalData
from amdim.pipeline import Recipe, TwoViewLoader, Views

EVERY = 30  # seconds between two lines on how it goes
Schedule = Callable[[int, int], float]  # from update (from 0) and number of updates to a factor of the learning rate


def training_views(images: EvalData, recipe: Recipe, keep: Tensor, batch: int) -> TwoViewLoader:
    """Two augmented views of the training images that are marked in ``keep`` (n,); the batch is cut to fit few of them.

    Raises:
        UsageError: there are too few for the ranks.
    """
    where = images.where
    fits, own = batch_for(images, int(keep.sum()), batch), (where.rank, where.world, where.device)
    return TwoViewLoader(images.data, ["train"], recipe, fits, *own, SEED, where.threads, keep=keep.numpy())


def batch_for(images: EvalData, n: int, batch: int) -> int:
    """Images of a step for all ranks: ``batch``, but of few images a power of two, which 1, 2, 4 or 8 ranks share alike.

    Raises:
        UsageError: n images, or ``batch``, are too few for the ranks.
    """
    ranks = images.where.world
    fits = (batch if n >= 2 * batch else 2 ** max(0, (n // 2).bit_length() - 1)) // ranks * ranks
    if batch < ranks:
        raise UsageError(f"--batch-size {batch}: is less than an image for each of {ranks} ranks")
    if fits < 2:
        advice = f"{ranks} ranks; use fewer" if ranks > 1 else "this; give a larger part of them"
        raise UsageError(f"{images.data}: {n} labelled training images are too few for {advice}")
    return fits


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: TwoViewLoader,
    epochs: float,
    schedule: Schedule,
    precision: Precision,
    images: EvalData,
    name: str,
) -> None:
    """Minimises ``model(x, y)`` over batches of both views.

    Args:
        model: gives the mean loss of images (2B, 3, S, S) with labels (2B,); on the device of ``loader``.
        optimizer: of its weights; the rates of its groups are what ``schedule`` multiplies.
        loader: gives the batches.
        epochs: passes over its images.
        schedule: of the learning rate.
        precision: that the model computes in.
        images: says how it goes, to people and to the other ranks.
        name: of what is trained, for people.

    Raises:
        UserError: the loss is not finite where it is looked at, every half minute.
    """
    wrapped, scaler = parallel(model.train(), loader.device), precision.scaler(loader.device)
    steps, rates, said = max(1, round(epochs * len(loader))), [group["lr"] for group in optimizer.param_groups], time.monotonic()
    for step, views in zip(range(steps), endless(loader), strict=False):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step, steps)
        x, y = torch.cat([views.x1, views.x2]), views.label.to(loader.device).repeat(2)
        with precision.autocast(loader.device):
            loss = wrapped(x if precision.dtype else x.float(), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        images.peers.reached(step)
        if time.monotonic() - said > EVERY:
            said, value = time.monotonic(), loss.item()
            if not math.isfinite(value):
                raise UserError(
                    f"{name}: the loss is no number any more at step {step + 1:,} (fine-tuning: try a lower --finetune-lr)"
                )
            images.console.print(f"{name}: step {step + 1:,} of {steps:,}, loss {value:.3f}", highlight=False)
    loader.views = None  # its thread ends, and what it holds of a shard set is free


def endless(loader: TwoViewLoader) -> Iterator[Views]:
    while True:
        yield from loader
