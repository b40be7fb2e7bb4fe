"""How well labels agree with masks.

Labels are numbers in [0, K) a pixel with no meaning of their own, so foreground has to be assigned first: image by image, to the
one component that fits its mask best (which knows the answer, and flatters every method alike); or once for all images, to those
components that fit the masks of training images. The adjusted Rand index needs no assignment: 0 is chance, 1 is equality.

Shape letters: n images, K components, S side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.metrics import adjusted_rand_score
from torch import Tensor


class Overlap(NamedTuple):
    """Pixels of each image's components inside and outside of its mask, (n, K) float64, and its adjusted Rand index (n,)."""

    inside: Tensor
    outside: Tensor
    rand: Tensor


def overlap(labels: Tensor, masks: Tensor, components: int) -> Overlap:
    """Of labels (n, S, S) int64 in [0, K) and masks (n, S, S) bool."""
    one_hot = F.one_hot(labels.flatten(1), components).double()
    inside = (one_hot * masks.flatten(1)[..., None]).sum(1)
    pairs = zip(masks.flatten(1).numpy(), labels.flatten(1).numpy(), strict=True)
    rand = [adjusted_rand_score(mask, label) for mask, label in pairs]
    return Overlap(inside, one_hot.sum(1) - inside, torch.tensor(rand, dtype=torch.float64))


def join(parts: list[Overlap]) -> Overlap:
    """Of all images in whose masks there is something: with an empty one there is nothing to agree on."""
    whole = Overlap(*(torch.cat(column) for column in zip(*parts, strict=True)))
    there = whole.inside.any(1)
    return Overlap(*(column[there] for column in whole))


def best_iou(found: Overlap) -> Tensor:
    """Intersection over union of each image's mask with its best component: (n,)."""
    return (found.inside / (found.inside.sum(1, keepdim=True) + found.outside)).amax(1)


def iou(found: Overlap, foreground: Tensor) -> Tensor:
    """The same, with all components of ``foreground`` (K,) bool together: (n,)."""
    chosen = foreground.double()
    return found.inside @ chosen / (found.inside.sum(1) + found.outside @ chosen)


def choose_foreground(found: Overlap) -> Tensor:
    """The components (K,) bool that are foreground in all images: added one by one for as long as the mean ``iou`` grows."""
    chosen, best = torch.zeros(found.inside.shape[1], dtype=torch.bool), 0.0
    while True:
        tries = [chosen | one for one in torch.eye(len(chosen), dtype=torch.bool)]
        values = [iou(found, each).mean().item() for each in tries]
        if not max(values) > best:
            return chosen
        best = max(values)
        chosen = tries[values.index(best)]
