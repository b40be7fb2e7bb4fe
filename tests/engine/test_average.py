"""The moving average of weights: its formula, its state, and what it leaves alone."""

import torch
from torch import nn

from amdim.engine.checkpoint import Checkpoint
from amdim.engine.optim.ema import ModelEma, averaged


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def train(net, average, first, last):
    """Steps that change weights and running statistics; what both were after each."""
    seen = []
    for step in range(first, last):
        torch.manual_seed(step)
        net(torch.randn(8, 3))
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(torch.randn_like(weight))
        average.update(step)
        seen.append({name: value.double().clone() for name, value in net.state_dict().items()})
    return seen


def test_the_formula():
    """Weights and running statistics alike; the random weights of the beginning have no part."""
    net = model()
    average = ModelEma(net, 0.6)
    seen = train(net, average, 0, 30)
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        expected = torch.zeros_like(seen[0][name])
        for step, values in enumerate(seen):
            kept = min(0.6, step / (step + 9))
            expected = kept * expected + (1 - kept) * values[name]
        torch.testing.assert_close(average.averages[name].double(), expected, rtol=1e-5, atol=1e-6)
    assert "1.num_batches_tracked" not in average.averages


def test_it_starts_as_the_first_weights_after_a_step():
    net = model()
    average = ModelEma(net, 0.999)
    train(net, average, 0, 1)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in average.averages.items())


def test_continued_bit_for_bit():
    whole, first, second = model(), model(), model()
    expected, begun = ModelEma(whole, 0.9), ModelEma(first, 0.9)
    train(whole, expected, 0, 20)
    train(first, begun, 0, 7)
    resumed = ModelEma(second, 0.9)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict({name: value.clone() for name, value in begun.state_dict().items()})
    train(second, resumed, 7, 20)
    assert all(torch.equal(value, expected.averages[name]) for name, value in resumed.averages.items())


def test_a_checkpoints_averages_take_the_place_of_its_weights(tmp_path):
    weights = {"a": torch.zeros(2), "count": torch.tensor(3)}
    saved = Checkpoint(tmp_path, weights, {"average": {"a": torch.ones(2)}}, {})
    assert torch.equal(averaged(saved).weights["a"], torch.ones(2))
    assert averaged(saved).weights["count"] == 3
    assert averaged(saved._replace(trainer={})).weights is not None
    assert torch.equal(averaged(saved._replace(trainer={})).weights["a"], torch.zeros(2))
