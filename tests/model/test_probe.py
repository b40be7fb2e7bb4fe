"""Online probes: their loss, their detachment, and batches without labels."""

import torch
import torch.nn.functional as F

from amdim.model.amdim import AMDIM
from amdim.model.encoder import EncoderConfig
from amdim.model.probes import probe_loss

TINY = EncoderConfig(32, 4, 24, 1)


def batch(B=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x1, x2 = torch.randn(2, B, 3, 32, 32, generator=generator)
    return x1, x2, torch.arange(B) % 3, torch.randint(0, 25, (2, B), generator=generator)


def test_loss_is_the_mean_over_labelled_samples():
    logits = torch.randn(5, 3)
    labels = torch.tensor([0, -1, 2, -1, 1])
    kept = logits[labels >= 0]
    expected = F.cross_entropy(10 * torch.tanh(kept / 10), labels[labels >= 0]) + 1e-3 * kept.square().mean()
    torch.testing.assert_close(probe_loss(logits, labels), expected)


def test_no_labels_gives_zero_with_zero_gradient():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = probe_loss(logits, torch.full((4,), -1))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_labels_never_reach_the_encoder():
    torch.manual_seed(0)
    model = AMDIM(TINY, classes=3)
    x1, x2, labels, locations = batch()
    model(x1, x2, labels, locations).probes.backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.linear.weight.grad.abs().sum() > 0


def test_total_is_objective_plus_probes_and_counts_both_views():
    torch.manual_seed(0)
    losses = AMDIM(TINY, classes=3)(*batch())
    torch.testing.assert_close(losses.total, losses.objective.total + losses.probes)
    assert losses.labelled == 8
    assert 0 <= losses.correct_linear <= 8


def test_without_classes_there_are_no_probes():
    torch.manual_seed(0)
    x1, x2, labels, locations = batch()
    losses = AMDIM(TINY, classes=0)(x1, x2, torch.full_like(labels, -1), locations)
    assert losses.probes == 0
    torch.testing.assert_close(losses.total, losses.objective.total)


def test_running_statistics_are_updated_once_a_view():
    torch.manual_seed(0)
    model = AMDIM(TINY, classes=0)
    model(*batch())
    assert model.encoder.to_1[-1].num_batches_tracked == 2
