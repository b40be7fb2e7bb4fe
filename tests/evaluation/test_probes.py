"""Probes on features whose answer is known."""

import torch

from evaluation.features import Labelled, collect, pixels, standardise
from evaluation.knn import knn_top1
from evaluation.linear import linear_top1


def blobs(n, seed, spread=0.3, classes=4, width=6):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    y = torch.randint(0, classes, (n,), generator=generator)
    return Labelled(centres[y] + spread * torch.randn(n, width, generator=generator), y)


def test_separable_classes_are_told_apart():
    train, test = blobs(400, 0), blobs(200, 1)
    assert linear_top1(train, test, 4) > 0.99
    assert knn_top1(train, test, 4) > 0.99


def test_random_labels_are_at_chance():
    train, test = blobs(1000, 0), blobs(2000, 1)
    shuffled = torch.randint(0, 4, (2000,), generator=torch.Generator().manual_seed(3))
    for top1 in (linear_top1, knn_top1):
        assert abs(top1(train, Labelled(test.x, shuffled), 4) - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5


def test_the_linear_probe_equals_a_converged_reference():
    """Against plain gradient descent run long, at the penalty that the probe chooses."""
    from evaluation.linear import choose_penalty, fit, logits

    train = blobs(300, 0, spread=1.5)
    (x,) = standardise(train.x)
    penalty, start = choose_penalty(x, train.y, 4)
    ours = fit(start, x, train.y, penalty)
    weights = torch.zeros(7, 4, requires_grad=True)
    for _ in range(3000):
        loss = torch.nn.functional.cross_entropy(logits(weights, x), train.y) + penalty / 2 * weights[:-1].square().sum()
        (gradient,) = torch.autograd.grad(loss, weights)
        weights = (weights - 0.5 * gradient).detach().requires_grad_()
    assert (logits(ours, x).argmax(1) == logits(weights, x).argmax(1)).float().mean() > 0.99


def test_predictions_of_an_image_do_not_depend_on_the_other_test_images():
    """A test split with shifted statistics: each image alone gives the same number of hits as all together."""
    train, test = blobs(400, 0, spread=1.5), blobs(40, 1, spread=1.5)
    shifted = Labelled(test.x + 1.0, test.y)
    for top1 in (linear_top1, knn_top1):
        alone = [top1(train, Labelled(shifted.x[i : i + 1], shifted.y[i : i + 1]), 4) for i in range(40)]
        assert (
            sum(alone) / 40 == torch.tensor(top1(train, shifted, 4)).double().item()
            or abs(sum(alone) / 40 - top1(train, shifted, 4)) < 1e-6
        )


def test_standardising_uses_training_statistics_and_keeps_constants_at_zero():
    train = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    a, b = standardise(train, torch.tensor([[2.0, 9.0]]))
    assert a[:, 1].tolist() == [0, 0]
    assert b.tolist() == [[0, 0]]


def test_collect_leaves_out_unlabelled_images():
    batches = [(torch.ones(2, 3, 4, 4), torch.tensor([1, -1])), (torch.zeros(1, 3, 4, 4), torch.tensor([0]))]
    (found,) = collect(batches, pixels)
    assert found.y.tolist() == [1, 0]
    assert found.x.shape == (2, 48)


def test_large_pixels_are_shrunk_to_32():
    assert pixels(torch.zeros(2, 3, 64, 64)).shape == (2, 3 * 32 * 32)
