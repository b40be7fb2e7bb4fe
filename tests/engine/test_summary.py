"""The start-up table: every operation with several implementations has its row, with the one that was taken and why."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from amdim.engine import compile, precision
from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.monitor import startup_table
from amdim.engine.optim import adam
from amdim.engine.presets import PRESETS
from amdim.engine.runs import Config
from amdim.pipeline import RECIPES, dali

CPU = torch.device("cpu")
EAGER = compile.choose("auto", CPU)


class Loader:
    store, splits, recipe = range(1000), ("train",), RECIPES["shapes32"]
    makers = dali.BACKENDS["torch"]

    def __len__(self):
        return 10


def test_the_plan_says_what_is_trained_on_what():
    config = Config("data/x", "demo", PRESETS["demo"], 25, 0, "auto", "10m")
    rows = dict(startup_table.plan(Path("runs/r"), config, Loader(), 1234))
    assert rows["run"] == "runs/r"
    assert "1,000 images of train" in rows["data"]
    assert rows["views"].startswith("recipe shapes32, exact colours: DALI decodes, torch does the rest (")
    assert "1,234 weights" in rows["preset"]
    assert "25 steps of 128 images, 2.50 epochs" in rows["length"]
    assert rows["schedule"] == "lr 0.002, 100 warm-up, cosine"


@pytest.mark.parametrize(("served", "words"), [(True, "Triton does the rest ("), (False, "DALI's graph (")])
def test_views_on_a_gpu_are_ended_by_what_is_there(monkeypatch, served, words):
    monkeypatch.setattr(dali, "is_available", lambda _: served)
    assert words in dali.BACKENDS[dali.backend_name("dali", torch.device("cuda"))]


@pytest.mark.parametrize(("every", "words"), [("10m", "every 10 minutes"), ("500", "every 500 steps")])
def test_what_a_checkpoint_will_hold(every, words):
    name, row = startup_table.checkpoints(Config("data/x", "demo", PRESETS["demo"], 25, 0, "auto", every, keep=3), 2_000_000)
    assert name == "checkpoints"
    assert row.startswith(f"{words}, 24.0 MB: weights, Adam's moments")
    assert row.endswith("; 3 kept")


def test_who_trains_together(monkeypatch):
    monkeypatch.setattr(startup_table.os, "sched_getaffinity", lambda _: range(8))
    assert startup_table.ranks(DistEnv(0, 1, CPU), "no") == [("ranks", "1, with 8 of 8 cores")]
    ((name, row),) = startup_table.ranks(DistEnv(4, 16, torch.device("cuda", 0), here=8), "bf16")
    assert name == "ranks"
    assert row == "16 over nccl, 8 of them on this machine, 1 of 8 cores each for loading; gradients travel in bfloat16"


@pytest.mark.parametrize("form", startup_table.FORMS)
def test_the_objective_is_served_by_what_its_dispatcher_says(monkeypatch, form):
    monkeypatch.setattr(startup_table, "chosen", lambda device: (form, f"for {device}"))
    chosen = adam.make("torch", [torch.nn.Parameter(torch.ones(3))], PRESETS["demo"], CPU)
    rows = dict(startup_table.means(CPU, precision.choose("off", CPU), chosen, EAGER))
    assert rows["objective"] == f"streamed, in {startup_table.FORMS[form]} (for cpu)"


def test_the_means_say_what_serves_and_why():
    chosen = adam.make("torch", [torch.nn.Parameter(torch.ones(3))], PRESETS["demo"], CPU)
    rows = dict(startup_table.means(CPU, precision.choose("off", CPU), chosen, EAGER))
    assert rows["precision"].startswith("float32 (asked for)")
    assert rows["optimizer"] == f"Adam, torch's fused kernel ({chosen.reason})"
    assert rows["objective"] == "streamed, in plain torch (Triton's kernels are for CUDA, this is cpu)"
    assert rows["encoder"] == f"matrix products ({EAGER.reason})"
    compiled = compile.CompileChoice(True, "asked for")
    assert (
        dict(startup_table.means(CPU, precision.choose("off", CPU), chosen, compiled))["encoder"] == "torch.compile (asked for)"
    )
    assert rows["statistics"] == "of each batch, torch's kernel (one rank)"
    apex = SimpleNamespace(name="Adam", kernel="apex's fused kernel", reason="asked for")
    assert (
        dict(startup_table.means(CPU, precision.choose("off", CPU), apex, EAGER))["optimizer"]
        == "Adam, apex's fused kernel (asked for)"
    )


def test_a_dry_run_counts_the_images_that_are_left():
    config = Config("data/x", "demo", PRESETS["demo"], 1000, 0, "auto", "10m")
    row = {"images_per_s": 100.0, "data_s": 0.0, "compute_s": 0.1, "loss": 1.0, "views_per_s": 400.0}
    assert "1,000 steps of 128 images would take 0:21:20" in startup_table.rehearsed(row, config, 1000, (1, 2))


def test_a_dry_run_is_as_slow_as_its_views_though_some_were_ready():
    config = Config("data/x", "demo", PRESETS["demo"], 1000, 0, "auto", "10m")
    row = {"images_per_s": 400.0, "data_s": 0.0, "compute_s": 0.1, "loss": 1.0, "views_per_s": 100.0}
    words = startup_table.rehearsed(row, config, 1000, (1, 2))
    assert words.startswith("dry run: 100 images/s")
    assert "views alone 100 images/s" in words
    assert "would take 0:21:20" in words
