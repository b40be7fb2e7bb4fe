"""Fine-tuning: the whole encoder goes on from the checkpoint with labels, on augmented views, under a linear classifier.

The classifier starts as a linear probe of the encoder as it is, so that the first gradients do not distort what there is to tune
(Kumar et al. 2022, 2202.10054).
Nothing is chosen by looking at images: ``--finetune-lr`` and ``--probe-epochs`` change the settings below.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engine.precision import Precision
from evaluation import in_step
from evaluation.contenders import Contender
from evaluation.extract import Images, sweep
from evaluation.scores import Scores, tally
from model import Encoder
from model.probe import LinearProbe, probe_loss
from pipeline import TwoViewLoader

EPOCHS = 10
RATE = 1e-3  # of the encoder
PENALTY = 1e-3  # of the classifier's start, which is to be sure of little
DECAY = 0.05
WARMUP = 0.1  # of the updates
SEED = 0


Head = tuple[Tensor, Tensor]  # weight (C, R) and bias (C,)


class FineTuned(nn.Module):
    """Encoder and classifier: the mean loss of images with labels in training, logits otherwise."""

    def __init__(self, encoder: Encoder, classes: int, head: Head | None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, LinearProbe(encoder.config.embedding, classes)
        if head is not None:
            self.head.load_state_dict(dict(zip(("weight", "bias"), head, strict=True)))
        for unused in (encoder.head_5, encoder.head_7):
            unused.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        r1 = self.encoder.represent(x)
        with torch.autocast(x.device.type, enabled=False):  # logits of 16 bits would tie
            logits: Tensor = self.head(r1.float())
        return logits if y is None else probe_loss(logits, y)


def fine_tune(
    images: Images,
    loader: TwoViewLoader,
    encoder: Encoder,
    classes: int,
    epochs: float,
    rate: float,
    precision: Precision,
    head: Head | None = None,
) -> nn.Module:
    """Trains on what ``loader`` gives, all ranks in step; rank 0 alone need have a ``head``, the others get its weights."""
    torch.manual_seed(SEED)
    model = FineTuned(encoder, classes, head).to(loader.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(moving, rate, weight_decay=DECAY, fused=True)
    in_step.train(model, optimizer, loader, epochs, schedule, precision, images, "finetune")
    return model


def schedule(step: int, steps: int) -> float:
    """A linear rise, then cosine to zero."""
    done, rise = step / steps, (step + 1) / max(1.0, WARMUP * steps)
    return min(1.0, rise) * 0.5 * (1 + math.cos(math.pi * done))


def test(images: Images, model: nn.Module, classes: int, precision: Precision) -> Scores:
    """Scores on the centred view of all labelled test images; every rank has them."""
    model.eval()

    def logits(x: Tensor) -> Tensor:
        with precision.autocast(images.where.device):
            return model(x.to(images.where.device) if precision.dtype else x.float())

    whole = Contender("finetuned", logits, classes, "")
    y = images.labels("val")
    pieces = ((found[0][0].cpu(), y[rows]) for rows, found in sweep(images.loader("val"), [whole], images.peers))
    return tally(((x[y >= 0], y[y >= 0]) for x, y in pieces), classes)
