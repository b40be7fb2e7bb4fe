"""Fine-tuning: the whole encoder goes on from the checkpoint with labels, under a linear classifier.

Nothing is chosen by looking at images: ``--finetune-lr`` and ``--probe-epochs`` change the settings below.

Shape letters: B images, C classes, R features.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from amdim.engine.precision import Precision
from amdim.evaluation.extract_features import EvalData, sweep
from amdim.evaluation.feature_extractors import FeatureExtractor
from amdim.evaluation.features import LabeledFeatures
from amdim.evaluation.probes import supervised
from amdim.evaluation.probes.classification_metrics import Scores, tally
from amdim.evaluation.probes.whitening import survey
from amdim.model import Encoder
from amdim.model.probes import probe_loss
from amdim.pipeline import Recipe, TwoViewLoader

EPOCHS = 10
RATE = 1e-3
DECAY = 0.05
WARMUP = 0.1  # of the updates
FLOOR = 1e-2  # of variances that are blown up to 1, where the mean variance is 1
LEAST_AREA = 0.5
SEED = 0


class Whitened(nn.Module):
    """A linear classifier (B, C) of features (B, R) along the principal axes that they have before tuning.

    Of r1 a few directions vary far more than the others, and what tells classes apart is in these: on r1 as it is, Adam's steps,
    which are as long in each coordinate, would be noise there. It begins with equal logits, so that the first gradients of the
    encoder are small, too (Kumar et al. 2022, 2202.10054, on what first gradients of a random classifier distort).
    """

    mean: Tensor  # (R,)
    whiten: Tensor  # (R, R), standardises, then whitens

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("whiten", torch.eye(features))
        self.linear = nn.Linear(features, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def look(self, train: LabeledFeatures, device: torch.device) -> None:
        """Takes the axes of some training images."""
        scale, axes = survey(train, device)
        stretched = axes.directions * (axes.variance + FLOOR).rsqrt()
        self.mean.copy_(scale.mean)
        self.whiten.copy_(scale.scale[:, None] * (stretched @ axes.directions.T))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear((x - self.mean) @ self.whiten)
        return logits


class FineTuned(nn.Module):
    """Encoder and classifier: the mean loss of images with labels in training, logits otherwise."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, Whitened(encoder.config.embedding, classes)
        for unused in (encoder.head_5, encoder.head_7):
            unused.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        r1 = self.encoder.represent(x)
        with torch.autocast(x.device.type, enabled=False):  # logits of 16 bits would tie
            logits: Tensor = self.head(r1.float())
        return logits if y is None else probe_loss(logits, y)


def gentle(recipe: Recipe) -> Recipe:
    """What it is tuned on: pretraining's boxes, but of half the image at least, and mirror images; colours as they are.

    It is asked for whole images in the end, and pretraining's views often hide what tells classes apart.
    """
    still = dict.fromkeys(("jitter_p", "gray_p", "lighting"), 0.0)
    area = (max(LEAST_AREA, recipe.area[0]), max(LEAST_AREA, recipe.area[1]))
    return replace(recipe, area=area, policy="none", **still)  # type: ignore[arg-type]


def fine_tune(
    images: EvalData,
    loader: TwoViewLoader,
    encoder: Encoder,
    classes: int,
    epochs: float,
    rate: float,
    precision: Precision,
    train: LabeledFeatures | None = None,
) -> nn.Module:
    """Trains on what ``loader`` gives, all ranks in step.

    Args:
        train: features by the encoder of training images. Rank 0 alone need have them, the others get what it made of them.
    """
    torch.manual_seed(SEED)
    model = FineTuned(encoder, classes).to(loader.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if train is not None:
        model.head.look(train, loader.device)
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(moving, rate, weight_decay=DECAY, fused=True)
    supervised.train(model, optimizer, loader, epochs, schedule, precision, images, "finetune")
    return model


def schedule(step: int, steps: int) -> float:
    """A linear rise, then cosine to zero."""
    done, rise = step / steps, (step + 1) / max(1.0, WARMUP * steps)
    return min(1.0, rise) * 0.5 * (1 + math.cos(math.pi * done))


def test(images: EvalData, model: nn.Module, classes: int, precision: Precision, known: Tensor, split: str) -> Scores:
    """Return scores on the centred view of all labelled images of a split, as ``tally`` has them; every rank has them."""
    model.eval()

    def logits(x: Tensor) -> Tensor:
        with precision.autocast(images.where.device):
            return model(x.to(images.where.device) if precision.dtype else x.float())

    whole = FeatureExtractor("finetuned", logits, classes, "")
    y = images.labels(split)
    pieces = ((found[0][0].cpu(), y[rows]) for rows, found in sweep(images.loader(split), [whole], images.peers))
    return tally(((x[y >= 0], y[y >= 0]) for x, y in pieces), classes, known)
