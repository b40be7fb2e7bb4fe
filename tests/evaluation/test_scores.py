"""Accuracies, their interval, and what is counted against what."""

import pytest
import torch

from amdim.errors import UserError
from amdim.evaluation.probes.classification_metrics import CONFUSION, tally, wilson


def test_no_image_is_taken_for_a_class_without_training_images():
    logits, y = torch.tensor([[0.0, 1.0, 9.0], [2.0, 1.0, 9.0]]), torch.tensor([2, 0])
    found = tally([(logits, y)], 3, torch.tensor([True, True, False]))
    assert found.top1 == 0.5
    assert found.confusion == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_no_five_classes_that_are_known_have_no_top5():
    known = torch.arange(7) < 3
    assert tally([(torch.randn(4, 7), torch.tensor([3, 4, 5, 6]))], 7, known).top5 is None
    assert tally([(-torch.arange(9.0).expand(4, 9), torch.tensor([3, 4, 8, 8]))], 9, torch.arange(9) < 7).top5 == 0.5


def test_scores_are_those_of_sklearn():
    from sklearn.metrics import confusion_matrix, recall_score, top_k_accuracy_score

    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(500, 8, generator=generator), torch.randint(0, 8, (500,), generator=generator)
    found = tally(zip(logits.split(64), y.split(64), strict=True), 8)
    assert found.n == 500
    assert found.confusion == confusion_matrix(y, logits.argmax(1)).tolist()
    assert found.top1 == pytest.approx(top_k_accuracy_score(y, logits, k=1))
    assert found.top5 == pytest.approx(top_k_accuracy_score(y, logits, k=5))
    assert found.per_class == pytest.approx(recall_score(y, logits.argmax(1), average=None).tolist())


def test_few_classes_have_no_top5_and_a_class_without_images_no_accuracy():
    found = tally([(torch.eye(3)[:2], torch.tensor([0, 0]))], 3)
    assert found.top5 is None
    assert found.per_class == [0.5, None, None]
    assert found.confusion == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found.confused == [(0, 1, 1, 0.5)]


def test_many_classes_have_no_confusion():
    classes = CONFUSION + 1
    taken = torch.tensor([1, 1, 2, 2, 2, 5, 5])
    found = tally([(torch.eye(classes)[taken], torch.tensor([1, 0, 0, 0, 2, 7, 7]))], classes)
    assert found.confusion is None
    assert found.confused == [(0, 2, 2, 2 / 3), (7, 5, 2, 1.0), (0, 1, 1, 1 / 3)]


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (8850, 10000, 0.8786, 0.8911)],
)
def test_the_interval_is_wilsons(hits, n, low, high):
    """Of scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")."""
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_logits_that_are_not_finite_are_an_error():
    with pytest.raises(UserError, match="not finite"):
        tally([(torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))], 2)
