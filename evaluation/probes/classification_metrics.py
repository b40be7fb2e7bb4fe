"""How well a classifier does on a whole test split, and how sure that is.

Shape letters: m images of a piece, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from amdim.errors import UserError
from amdim.evaluation.features import LabeledFeatures

CONFUSION = 200  # classes, at most, of which each is counted against each
CONFUSED = 20  # pairs of classes that are listed, however many there are
Z = 1.959964  # the normal distribution's 97.5 % point
Classifier = Callable[[Tensor], Tensor]  # logits or votes (m, C) of features (m, D), each row from its own features alone


class Fitted(NamedTuple):
    """A trained probe, and the hyper-parameters that it chose."""

    classify: Classifier
    chosen: dict[str, float]


class Confused(NamedTuple):
    """Images of class ``truth`` that were taken for class ``taken``, and their share of the class."""

    truth: int
    taken: int
    images: int
    share: float


class Scores(NamedTuple):
    """Fractions of the test images.

    Args:
        top1: that have their class as the largest logit.
        top5: that have it among the five largest; None where no more than five classes are known.
        interval: Wilson's 95 % interval of ``top1``.
        per_class: top-1 of each class; None for one without test images.
        confusion: images of class i (row) that were taken for class j (column); None with more than 200 classes.
        n: the test images.
        confused: the pairs of classes that are confused most, by images.
    """

    top1: float
    top5: float | None
    interval: tuple[float, float]
    per_class: list[float | None]
    confusion: list[list[int]] | None
    n: int
    confused: list[Confused]


def score(classify: Classifier, test: LabeledFeatures, classes: int, device: torch.device, known: Tensor | None = None) -> Scores:
    """Scores on all images of ``test``, in their order."""
    with torch.no_grad():
        return tally(((classify(x), y) for x, y in test.pieces(device)), classes, known)


def tally(pieces: Iterable[tuple[Tensor, Tensor]], classes: int, known: Tensor | None = None) -> Scores:
    """Scores of logits (m, C) and labels (m,).

    Args:
        pieces: logits and labels.
        classes: C.
        known: (C,) bool, the classes that there were images of to train on; no image is taken for another one, which a classifier
            that was trained little might do by chance.

    Raises:
        UserError: a logit is not finite, so that no class is the largest.
    """
    images, right = torch.zeros(2, classes, dtype=torch.int64)
    unseen = torch.zeros(classes, dtype=torch.bool) if known is None else ~known
    confusion = torch.zeros(classes, classes, dtype=torch.int64) if classes <= CONFUSION else None
    among, mistakes = 0, [torch.empty(0, dtype=torch.int64)]
    for logits, y in pieces:
        if not logits.isfinite().all():
            raise UserError(
                "the probe's logits are not finite, so its training diverged (fine-tuning: try a lower --finetune-lr)"
            )
        possible = logits.masked_fill(unseen.to(logits.device), torch.finfo(logits.dtype).min)
        best, truth = possible.topk(min(5, classes)).indices.cpu(), y.cpu()
        images += torch.bincount(truth, minlength=classes)
        right += torch.bincount(truth[best[:, 0] == truth], minlength=classes)
        mistakes.append((truth * classes + best[:, 0])[best[:, 0] != truth])
        among += int((best == truth[:, None]).sum())
        if confusion is not None:
            confusion += torch.bincount(truth * classes + best[:, 0], minlength=classes**2).view(classes, classes)
    n, hits = int(images.sum()), int(right.sum())
    each = [r / m if m else None for r, m in zip(right.tolist(), images.tolist(), strict=True)]
    table = None if confusion is None else confusion.tolist()
    pairs = confused(torch.cat(mistakes), images)
    top5 = among / n if classes - int(unseen.sum()) > 5 else None
    return Scores(hits / n, top5, wilson(hits, n), each, table, n, pairs)


def confused(mistakes: Tensor, images: Tensor) -> list[Confused]:
    """The most frequent of mistakes (k,), each truth * C + taken, of test images (C,) by class; ties by class."""
    codes, counts = mistakes.unique(return_counts=True)
    chosen = counts.argsort(descending=True, stable=True)[:CONFUSED]
    truth, taken = codes[chosen] // len(images), codes[chosen] % len(images)
    columns = truth, taken, counts[chosen], counts[chosen].double() / images[truth]
    return [Confused(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927): inside [0, 1], and right for small n and for proportions near 0 and 1."""
    p, z2n = hits / n, Z * Z / n
    middle, half = p + z2n / 2, Z * (p * (1 - p) / n + z2n / (4 * n)) ** 0.5
    return max(0.0, (middle - half) / (1 + z2n)), min(1.0, (middle + half) / (1 + z2n))
