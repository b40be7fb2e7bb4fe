"""Steps of a trainer by itself: that settings reach what they are for, and in which order a step does its things."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from amdim.engine import compile
from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.monitor import metrics
from amdim.engine.monitor.metrics import NAMES, Metrics
from amdim.engine.optim.lr_schedule import learning_rate
from amdim.engine.presets import PRESETS
from amdim.engine.runs import Config
from amdim.engine.trainer import Trainer
from amdim.errors import UsageError
from amdim.model import EncoderConfig, Losses
from amdim.model.encoder import CheckpointedSequential
from amdim.model.multiscale_nce import MultiscaleLoss

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NET = EncoderConfig(32, 8, 64, 2, use_bn=True)


def trainer(amp="off", recompute=False, steps=40, seed=0, compiled="off", **changes):
    """Of a small preset; ``changes`` are of its fields."""
    preset = replace(PRESETS["demo"], encoder=NET, batch=8, **changes)
    loader = SimpleNamespace(manifest=SimpleNamespace(classes=["a", "b"]))
    return Trainer(Config("", "", preset, steps, seed, amp, "", compiled=compiled), loader, DistEnv(0, 1, CPU, 0, 1), recompute)


def take_step(one):
    generator = torch.Generator().manual_seed(one.step)
    views = torch.randn(2, 8, 3, 32, 32, generator=generator)
    one.update(*views, torch.arange(8) % 2, torch.zeros(2, 8, dtype=torch.int64))


def weights(one):
    return {name: value.clone() for name, value in one.model.state_dict().items()}


def test_settings_reach_the_model():
    model = trainer(clip=15.0, mixture=2, mixture_mode="join", mixture_alpha=0.7).model
    assert (model.clip, model.alpha, model.replaces) == (15.0, 0.7, False)
    assert trainer(mixture=2, mixture_mode="replace").model.replaces
    one, other = (weights(trainer(seed=seed))["encoder.to_7.0.0.weight"] for seed in (0, 1))
    assert not torch.equal(one, other)


def test_every_group_of_weights_follows_the_schedule_of_the_whole_run():
    one = trainer(decay_biases=False, warmup=3, schedule="cosine", steps=10)
    assert len(one.optimizer.param_groups) == 2
    for step in range(10):
        take_step(one)
        assert {group["lr"] for group in one.optimizer.param_groups} == {learning_rate(one.config.settings, step, 10)}


def gradient(one):
    return torch.nn.utils.get_total_norm([weight.grad for weight in one.model.parameters() if weight.grad is not None])


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_gradient_is_clipped_before_the_step_and_after_the_loss_scale_is_out_of_it(amp):
    one, seen = trainer(amp, grad_clip=0.5), []
    if amp == "fp16":  # which a CPU computes, though `--amp` does not choose it there
        one.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    one.optimizer.register_step_pre_hook(lambda *_: seen.append(gradient(one)))
    take_step(one)
    norm = one.meter.sums[NAMES.index("grad_norm")].item()
    assert seen[0] == pytest.approx(0.5, rel=1e-3)
    exact = trainer("off")
    take_step(exact)
    assert norm == pytest.approx(gradient(exact).item(), rel=0.1)  # what it was: neither clipped nor scaled
    assert norm > 1


def test_averages_are_of_the_weights_after_each_step_and_not_of_the_first_ones():
    one, name = trainer(ema=0.3, lr=0.01, warmup=0), "encoder.head_7.conv2.weight"
    mean = torch.empty(0)
    for step in range(4):
        take_step(one)
        kept = min(0.3, step / (step + 9))
        mean = kept * mean + (1 - kept) * weights(one)[name] if step else weights(one)[name]
        torch.testing.assert_close(one.average.averages[name], mean)


def test_activations_are_computed_again_where_that_is_asked_for():
    for asked in (False, True):
        chains = [each for each in trainer(recompute=asked).model.encoder.modules() if isinstance(each, CheckpointedSequential)]
        assert any(each.recompute for each in chains) is asked


def test_recomputing_and_compiling_do_not_go_together(monkeypatch):
    monkeypatch.setattr(compile, "missing", lambda _: None)
    with pytest.raises(UsageError, match="give one of them"):
        compile.choose("on", CPU, recompute=True)
    assert compile.choose("auto", CUDA).on
    assert not compile.choose("auto", CUDA, recompute=True).on


def test_what_is_fast_is_on(monkeypatch):
    monkeypatch.setattr(compile, "missing", lambda _: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    one = trainer(compiled="on")
    assert one.model.encoder._compiled_call_impl is not None
    assert torch.backends.cudnn.benchmark
    kernels = [weight for weight in one.model.parameters() if weight.ndim == 4 and weight.shape[-1] > 1]
    assert kernels
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


def test_a_window_of_steps_as_a_row(monkeypatch):
    """Losses by name, accuracies of the labelled, seconds a step; a gradient that overflowed counts as none."""
    now = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    window = Metrics(CPU)
    objective = MultiscaleLoss(*(torch.tensor(value) for value in (1.0, 2.0, 3.0, 4.0)))
    others = (torch.tensor(value) for value in (0.25, 0.5, 3, 6, 8))
    losses = Losses(torch.tensor(10.5), objective, *others)
    for norm in (6.0, float("inf")):
        window.add(losses, torch.tensor(norm))
    window.data_s, now[0] = 1.0, 4.0
    assert window.read(batch=16) == {
        "loss": 10,
        "loss_1t5": 1,
        "loss_1t7": 2,
        "loss_5t5": 3,
        "regulariser": 4,
        "loss_mixture": 0.25,
        "probes": 0.5,
        "grad_norm": 3,
        "linear_top1": 0.375,
        "mlp_top1": 0.75,
        "images_per_s": 8,
        "data_s": 0.5,
        "compute_s": 1.5,
    }
    assert window.count == 0
