"""Training with what the original does not do: killed equals undisturbed, and the default's losses are what they were."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from amdim.engine import checkpoint
from amdim.engine.optim.ema import wanted
from amdim.engine.trainer import Trainer
from tests.commands import ROUNDING, difference, rows
from tests.commands import train as in_float32
from tests.test_stopped import kill, start, wait_until
from tests.test_train import final, losses, remove, run, same_weights, train

# Of commit f243dcd, before there was a choice: 20 steps on photo_set in float32.
RECORDED = {"loss": 33.408757019042966, "loss_1t7": 8.700965356826782, "regulariser": 3.5932533204555512}
EVERYTHING = ("--ema", "0.9", "--grad-clip", "5", "--no-decay-biases", "--schedule", "step", "--warmup", "3")
CASES = {
    "adamw": ("--optimizer", "adamw"),
    "lamb": ("--optimizer", "lamb", "--lr", "1e-2", *EVERYTHING),
    "lars": ("--optimizer", "lars", "--lr", "2", *EVERYTHING),
}


def test_the_default_has_the_losses_that_it_had(photo_set, tmp_path):
    in_float32(photo_set, "base", "--steps", "20", cwd=tmp_path)
    (row,) = rows(tmp_path / "runs" / "base")
    for name, value in RECORDED.items():
        assert row[name] == pytest.approx(value, rel=ROUNDING), name


@pytest.mark.parametrize("name", ["lamb", *(pytest.param(name, marks=pytest.mark.long) for name in CASES if name != "lamb")])
def test_resumed_equals_undisturbed(photo_set, tmp_path, name):
    """With moments, averages and counts from the checkpoint of step 9; what came after is thrown away."""
    options = ("--steps", "15", "--save-every", "9", *CASES[name])
    whole, cut = (tmp_path / "runs" / each for each in ("whole", "cut"))
    shown = train(photo_set, "whole", *options, cwd=tmp_path).stdout
    assert f"{name.upper() if name != 'adamw' else 'AdamW'}, " in shown
    train(photo_set, "cut", *options, cwd=tmp_path)
    remove(cut / "checkpoints" / "step-15")
    assert "step-9" in train(photo_set, "cut", *options, cwd=tmp_path).stdout
    assert losses(cut) == losses(whole)
    assert same_weights(cut, whole)
    one, other = final(cut).trainer["average"], final(whole).trainer["average"]
    assert bool(one) == ("--ema" in options)
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_config_json_repeats_it(photo_set, tmp_path):
    train(photo_set, "one", "--steps", "4", *CASES["lamb"], cwd=tmp_path)
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    settings = json.loads((one / "config.json").read_text())["settings"]
    asked = {"optimizer": "lamb", "ema": 0.9, "grad_clip": 5.0, "decay_biases": False, "schedule": "step", "warmup": 3}
    assert {name: settings[name] for name in asked} == asked
    train(photo_set, "two", "--config", one / "config.json", cwd=tmp_path)
    assert same_weights(one, two)


def test_a_gradient_is_clipped_by_the_norm_of_all_weights_together():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    for weight in list(model.parameters())[:-1]:  # one has no gradient
        weight.grad = torch.randn_like(weight)
    before = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    for limit, length in ((0.0, before.norm()), (1e6, before.norm()), (0.5, torch.tensor(0.5))):
        asked = SimpleNamespace(model=model, config=SimpleNamespace(settings=SimpleNamespace(grad_clip=limit)))
        torch.testing.assert_close(Trainer.clip(asked), before.norm())  # what is logged is what it was
        after = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        torch.testing.assert_close(after, before * length / before.norm(), rtol=1e-5, atol=0)


@pytest.mark.long
def test_ranks_take_the_steps_of_one(photo_set, tmp_path):
    for name, ranks in (("one", "1"), ("two", "2")):
        in_float32(photo_set, name, "--steps", "20", "--procs", ranks, *CASES["lamb"][:-4], cwd=tmp_path)
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    assert difference(one, two) < ROUNDING
    for key, value in final(one).trainer["average"].items():
        torch.testing.assert_close(value, final(two).trainer["average"][key], rtol=0.02, atol=0.02)


@pytest.mark.long
def test_killed_equals_undisturbed(photo_set, tmp_path):
    options = ("--save-every", "3", *CASES["lamb"])
    train(photo_set, "whole", "--steps", "45", *options, cwd=tmp_path)
    process = start(photo_set, tmp_path, *options, stdout=subprocess.DEVNULL)
    whole, cut = (tmp_path / "runs" / each for each in ("whole", "cut"))
    wait_until((cut / "checkpoints" / "step-9").exists, process)
    kill(process)
    train(photo_set, "cut", "--steps", "45", *options, cwd=tmp_path)
    assert losses(cut) == losses(whole)
    assert same_weights(cut, whole)
    other = final(whole).trainer["average"]
    assert all(torch.equal(value, other[key]) for key, value in final(cut).trainer["average"].items())


def test_evaluation_takes_the_averages_unless_it_is_told_not_to(photo_set, tmp_path):
    train(photo_set, "mean", "--steps", "6", "--ema", "0.9", cwd=tmp_path)
    found = {}
    for more in ((), ("--last-weights",)):
        shown = run("eval.py", "--probe", "linear", "--run", "mean", "--gpus", "0", *more, cwd=tmp_path).stdout
        found[more] = json.loads((tmp_path / "runs" / "mean" / "eval-linear.json").read_text())["averaged"]
        assert ("averaged weights" in shown) == (not more)
    assert list(found.values()) == [True, False]
    saved = final(tmp_path / "runs" / "mean")
    last, averages = (wanted(saved, last=flag)[0].weights for flag in (True, False))
    assert all(torch.equal(last[name], value) for name, value in saved.weights.items())
    assert all(torch.equal(averages[name], value) for name, value in saved.trainer["average"].items())
    assert not torch.equal(last["encoder.to_7.0.0.weight"], averages["encoder.to_7.0.0.weight"])


def test_a_run_from_before_there_was_a_choice_goes_on(photo_set, tmp_path):
    train(photo_set, "old", "--steps", "6", "--save-every", "4", cwd=tmp_path)
    old = tmp_path / "runs" / "old"
    remove(old / "checkpoints" / "step-6")
    saved = checkpoint.load(old / "checkpoints" / "step-4")
    for name in ("optimizer", "decay_biases", "grad_clip", "ema"):
        del saved.config["settings"][name]
    del saved.trainer["average"]
    checkpoint.save(old / "checkpoints", 4, saved.weights, saved.trainer, saved.config)
    assert "continuing" in train(photo_set, "old", "--steps", "6", cwd=tmp_path).stdout
