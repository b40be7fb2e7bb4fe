"""Probes on features whose answer is known."""

from functools import partial
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from amdim.engine import precision
from amdim.evaluation import features
from amdim.evaluation.features import LabeledFeatures, Scaled, collect, fit_scaler, labelled, pixels, represent
from amdim.evaluation.probes import knn, mlp
from amdim.evaluation.probes.classification_metrics import score
from amdim.evaluation.probes.knn import train_knn
from amdim.evaluation.probes.linear import choose_penalty, fit, logits, objective, train_linear
from amdim.evaluation.probes.mlp import train_mlp
from amdim.evaluation.probes.whitening import Axes, principal_axes, survey, surveyed
from amdim.model import Encoder, EncoderConfig

CPU = torch.device("cpu")
TRAINERS = {"linear": train_linear, "mlp": partial(train_mlp, epochs=10), "knn": train_knn}
every_probe = pytest.mark.parametrize("probe", TRAINERS)


def blobs(n, seed, spread=0.3, classes=4, width=6, views=1):
    """Views of an image are noisy, and have one label."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    y = torch.randint(0, classes, (n,), generator=generator)
    return labelled(centres[y] + spread * torch.randn(views, n, width, generator=generator), y)


def top1(probe, train, test, classes=4):
    return score(TRAINERS[probe](train, classes, CPU).classify, test, classes, CPU).top1


@every_probe
def test_separable_classes_are_told_apart(probe):
    assert top1(probe, blobs(400, 0), blobs(200, 1)) > 0.99


@every_probe
def test_random_labels_are_at_chance(probe):
    test = blobs(2000, 1)
    shuffled = torch.randint(0, 4, (2000,), generator=torch.Generator().manual_seed(3))
    assert abs(top1(probe, blobs(1000, 0), labelled(test.x, shuffled)) - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5


@every_probe
def test_predictions_of_an_image_do_not_depend_on_the_other_test_images(probe):
    """Test images with other statistics than the training's: each alone gets the logits that it has among all."""
    train, test = blobs(400, 0, spread=1.5), blobs(40, 1, spread=1.5)
    shifted = 3 * test.x[0] + 1.0
    classify = TRAINERS[probe](train, 4, CPU).classify
    with torch.no_grad():
        together, alone = classify(shifted), torch.cat([classify(row[None]) for row in shifted])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)
    assert together.argmax(1).unique().numel() > 1


def test_features_of_an_image_do_not_depend_on_the_other_test_images():
    """Test images of other statistics than those that normalisation has seen: each alone has the features it has among all."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(32, 8, 48, 1, use_bn=True))
    for _ in range(20):
        encoder(torch.randn(16, 3, 32, 32))
    see = represent(encoder, precision.choose("off", CPU), CPU)
    shifted = 2 * torch.randn(8, 3, 32, 32) + 1.5
    together, alone = see(shifted), torch.cat([see(image[None]) for image in shifted])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(see(shifted[:3]), together[:3], rtol=1e-4, atol=1e-5)
    assert together.std(0).max() > 0.1


@every_probe
def test_pieces_of_a_file_give_the_numbers_of_one_piece_in_memory(probe, monkeypatch):
    train, test = blobs(100, 0, spread=1.5, views=2), blobs(100, 1, spread=1.5)
    monkeypatch.setattr(mlp, "BLOCK", 100)  # decides the order
    monkeypatch.setattr("amdim.evaluation.probes.linear.PENALTIES", (1e-2,))  # lighter ones magnify rounding
    whole = TRAINERS[probe](train, 4, CPU).classify(test.x[0])
    monkeypatch.setattr(features, "PIECE", 7)
    monkeypatch.setattr(features, "KEPT", 0)
    pieces = TRAINERS[probe](train, 4, CPU).classify(test.x[0])
    assert (whole.argmax(1) == pieces.argmax(1)).float().mean() > 0.98
    torch.testing.assert_close(pieces, whole, rtol=0.05, atol=0.05)


def test_no_more_than_a_piece_is_in_float32(monkeypatch):
    monkeypatch.setattr(features, "PIECE", 7)
    monkeypatch.setattr(features, "KEPT", 0)
    sizes = [x.shape for x, _ in Scaled(blobs(20, 0, views=2), lambda x: x, CPU)]
    assert sizes == [(7, 6)] * 5 + [(5, 6)]


def test_a_set_that_is_sorted_by_class_is_seen_in_a_mixed_order(monkeypatch):
    monkeypatch.setattr(mlp, "BLOCK", 512)
    y = torch.arange(16).repeat_interleave(128)
    train = labelled(torch.randn(2, len(y), 1), y)
    drawn = [y for _, y in islice(mlp.batches(train, lambda x: x, CPU), 16)]
    assert torch.equal(torch.cat(drawn).bincount(), torch.full((16,), 256))  # an epoch: each image once a view
    assert all(len(labels.unique()) >= 4 for labels in drawn)


def test_axes_are_of_samples_from_all_over_the_set(monkeypatch):
    monkeypatch.setattr("amdim.evaluation.probes.whitening.SURVEYED", 640)
    places = torch.arange(3, 2 * 5000)
    found = surveyed(places)
    assert len(found.unique()) == len(found) == 640 - 64 + (len(places) - 1) % 64 + 1
    assert found[0] == 3
    assert found[-1] == 9999
    assert found.diff().max() < 1200
    assert torch.equal(surveyed(places[:600]), places[:600])


@every_probe
def test_unlabelled_images_change_nothing(probe):
    train, test = blobs(200, 0, spread=1.0), blobs(100, 1, spread=1.0)
    x, y = torch.randn(1, 250, 6), torch.full((250,), -1)
    place = torch.randperm(250, generator=torch.Generator().manual_seed(5))[:200].sort().values
    x[:, place], y[place] = train.x, train.y
    assert top1(probe, labelled(x, y), test) == top1(probe, train, test)


def test_views_of_an_image_are_held_out_together(monkeypatch):
    """What chooses the penalty is no view of an image that was trained on."""
    seen = []
    monkeypatch.setattr(LabeledFeatures, "only", lambda self, mask: seen.append(mask) or self._replace(rows=self.rows[mask]))
    train = blobs(60, 0, views=3)
    choose_penalty(train, 4, CPU, *survey(train, CPU))
    assert len(seen) == 10
    assert all(mask.shape == (60,) for mask in seen)
    for shown, held in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(shown, ~held)


def test_the_floor_is_chosen_by_images_that_were_not_trained_on(monkeypatch):
    shown, tested = [], []
    monkeypatch.setattr(mlp, "fit", lambda train, _, form, *__: shown.append(train) or form.args[2])
    best = {10: 0.5, 1: 0.6, 0.1: 0.9, 0.01: 0.7, 0.001: 1.0}  # the last is not tried

    def tell(floor, unseen, *_):
        tested.append(unseen)
        return SimpleNamespace(top1=best[floor])

    monkeypatch.setattr(mlp, "score", tell)
    train = blobs(300, 0, views=3)
    assert train_mlp(train, 4, CPU).chosen == {"floor": 0.1}
    *shorter, whole = shown
    assert len(shorter) == len(tested) == 4 * 5  # parts of so few images take turns
    held = torch.cat([each.rows for each in tested[:5]])
    assert len(held.unique()) == len(held) == 150
    for some, others in zip(shorter, tested, strict=True):
        assert (len(some.x), len(others.x)) == (3, 1)
        assert not set(some.rows.tolist()) & set(others.rows.tolist())
        assert len(some.rows) + len(others.rows) == 300
    assert len(whole.rows) == 300
    few = train.only(torch.arange(15))  # too few to choose by
    assert train_mlp(few, 4, CPU).chosen == {"floor": mlp.FLOORS[0]}


def test_the_linear_probe_equals_a_converged_reference():
    """Against plain gradient descent run long, at the penalty that the probe chooses."""
    train = blobs(300, 0, spread=1.5)
    scale, axes = survey(train, CPU)
    penalty, start = choose_penalty(train, 4, CPU, scale, axes)
    x, y = scale(train.x[0]), train.y
    ours = fit(start, Scaled(train, scale, CPU), penalty, axes)
    weights = torch.zeros(7, 4, requires_grad=True)
    for _ in range(3000):
        loss = F.cross_entropy(logits(weights, x), y) + penalty / 2 * weights[:-1].square().sum()
        (gradient,) = torch.autograd.grad(loss, weights)
        weights = (weights - 0.5 * gradient).detach().requires_grad_()
    torch.testing.assert_close(ours.softmax(1), weights.detach().softmax(1), rtol=0.02, atol=0.01)
    assert (logits(ours, x).argmax(1) == logits(weights, x).argmax(1)).float().mean() > 0.99


def test_nearly_dependent_features_are_fitted_in_few_passes(monkeypatch):
    """Their differences tell the classes, and are a thousandth of what they have in common."""
    generator = torch.Generator().manual_seed(0)
    plain, y = torch.randn(500, 8, generator=generator), torch.arange(500) % 2
    plain[:, 0] += 4 * y
    mixed = plain @ torch.randn(8, 8, generator=generator) * 1e-3 + torch.randn(500, 1, generator=generator)
    train = Scaled(labelled(mixed, y), lambda x: x, CPU)
    monkeypatch.setattr("amdim.evaluation.probes.linear.ITERATIONS", 20)
    along, plain_axes = principal_axes(mixed), Axes(torch.ones(8), torch.eye(8))
    right = [(logits(fit(torch.zeros(9, 2), train, 1e-9, axes), mixed).argmax(1) == y) for axes in (along, plain_axes)]
    assert right[0].float().mean() > 0.95 > right[1].float().mean()


def test_axes_of_few_images_are_those_of_their_features():
    x = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    few, all_of_them = principal_axes(x), torch.linalg.eigh(x.T @ x / 20)
    torch.testing.assert_close(few.variance, all_of_them[0][-20:], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(few.directions.T @ few.directions, torch.eye(20), rtol=0, atol=1e-3)
    torch.testing.assert_close(x @ few.directions @ few.directions.T, x, rtol=1e-3, atol=1e-3)


def test_the_linear_probe_of_few_images_is_at_its_minimum():
    """More features than images: the gradient is nil in all of them, not only along the axes."""
    train = blobs(40, 0, spread=1.0, width=60)
    scale, axes = survey(train, CPU)
    shown = Scaled(train, scale, CPU)
    weights = fit(torch.zeros(61, 4), shown, 1e-2, axes)
    assert objective(weights, shown, 1e-2)[1].abs().max() < 1e-4


def test_the_penalty_is_heavy_where_features_are_noise_and_light_where_they_are_not():
    noise = labelled(torch.randn(200, 50, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 4)
    blob = blobs(200, 0, spread=0.1)
    assert choose_penalty(noise, 4, CPU, *survey(noise, CPU))[0] >= 1e-1
    assert choose_penalty(blob, 4, CPU, *survey(blob, CPU))[0] <= 1e-3


def test_neighbours_are_those_of_one_great_product(monkeypatch):
    train, test = blobs(100, 0, spread=2.0), blobs(30, 1, spread=2.0)
    monkeypatch.setattr(features, "PIECE", 9)
    found = train_knn(train, 4, CPU).classify(test.x[0])
    scale = fit_scaler(train, CPU)
    cosine, nearest = (F.normalize(scale(test.x[0])) @ F.normalize(scale(train.x[0])).T).topk(knn.NEIGHBOURS)
    votes = torch.zeros(30, 4).scatter_add_(1, train.y[nearest], (cosine / knn.TEMPERATURE).exp())
    torch.testing.assert_close(found, votes)


def test_standardising_uses_training_statistics_and_keeps_constants_at_zero():
    scale = fit_scaler(labelled(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([0, 1])), CPU)
    assert scale(torch.tensor([[2.0, 9.0]])).tolist() == [[0, 0]]
    assert scale(torch.tensor([[3.0, 9.0]])).tolist() == [[1, 0]]


def test_a_variance_that_is_small_beside_its_mean_keeps_its_digits(monkeypatch):
    monkeypatch.setattr(features, "PIECE", 10)
    x = 100 + 0.01 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    scale = fit_scaler(labelled(x, torch.zeros(1000, dtype=torch.int64)), CPU)
    torch.testing.assert_close(1 / scale.scale.double(), x.double().std(0, correction=0), rtol=1e-3, atol=0)


def test_collect_leaves_out_unlabelled_images():
    batches = [(torch.ones(2, 3, 4, 4), torch.tensor([1, -1])), (torch.zeros(1, 3, 4, 4), torch.tensor([0]))]
    found = collect(batches, pixels)
    assert found.labels.tolist() == [1, 0]
    assert found.x.shape == (1, 3, 48)


@every_probe
def test_a_collapsed_encoder_is_at_chance_and_no_error(probe):
    """Features that are all alike, fewer images than features."""
    train = labelled(torch.ones(1, 40, 64), torch.arange(40) % 4)
    assert top1(probe, train, train) == 0.25


def test_axes_that_hardly_vary_are_left_out_but_for_the_first():
    axes = Axes(torch.tensor([1e-9, 1e-3, 2.0]), torch.eye(3))
    assert axes.above(1e-6).variance.tolist() == axes.variance[1:].tolist()
    assert axes.above(5.0).directions.tolist() == [[0.0], [0.0], [1.0]]


def test_large_pixels_are_shrunk_to_32():
    assert pixels(torch.zeros(2, 3, 64, 64)).shape == (2, 3 * 32 * 32)
