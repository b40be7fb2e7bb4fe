"""Which training images a probe is shown: all, a few of each class, or all but a part that chooses its hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

HELD_OUT = 10  # one image in ten chooses
FEW, TURNS = 2000, 5  # with fewer images than that, five parts take turns: one would be too few to choose by
SEED = 0


def held_out(labels: Tensor) -> Iterator[Tensor]:
    """Masks (k,) of images to hold out, one or a few that do not overlap. Each has nearly a tenth of every class."""
    place = torch.empty_like(labels)
    place[labels.argsort(stable=True)] = torch.arange(len(labels))
    for turn in range(TURNS if len(labels) < FEW else 1):
        yield place % HELD_OUT == turn


def stratified_subset(labels: Tensor, fraction: float) -> Tensor:
    """Positions of a fraction of the images, the same number of each class that is there as far as it has them, and one at least.

    Args:
        labels: (k,), in the order of the split.
        fraction: of k.

    Returns:
        (j,) ascending. The choice is drawn from a fixed seed, and larger fractions hold the images of smaller ones.
    """
    # Ids may be sparse: names without an image are no classes to share with.
    _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    each = max(1, round(fraction * len(labels) / max(1, len(counts))))
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    by_class = drawn[classes[drawn].argsort(stable=True)]
    number = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)  # within its class
    return by_class[number < each].sort().values
