"""That AMDIM learns from images: the presets for two CPU cores against what they must reach, on whole test sets."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from amdim.shards.build import build
from amdim.shards.sources import fashion_mnist
from bench import learns

ROOT = Path(__file__).parent.parent


@pytest.fixture
def in_clone(tmp_path, monkeypatch):
    """A scratch directory that looks like the repository's root to the commands."""
    for name in ("train.py", "eval.py", "errors.py", "fileio.py", "shards", "pipeline", "model", "engine", "evaluation"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def alone(in_clone, monkeypatch):
    """One thread is for tests side by side; these train for many minutes, and run alone."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    return in_clone


def test_a_minute_of_training_beats_random_initialisation(in_clone):
    """On 3,000 real images with a narrow encoder: the short sibling of the two below."""
    need_fashion_mnist()
    some = {"train": 3000, "val": 1000}
    whole = fashion_mnist.source(None)
    source = replace(whole, splits={split: whole.splits[split][:count] for split, count in some.items()})
    build(source, Path("data/fashion-mnist"), seed=0, workers=1, max_rejected=0, overwrite=False, show=lambda _: None)
    common = ("--run", "short", "--gpus", "0")
    narrow = ("--config", str(ROOT / "tests/small.toml"))
    length = ("--batch-size", "64", "--lr", "2e-3", "--warmup", "20", "--steps", "120")
    learns.call("train.py", "--data", "fashion-mnist", *common, *narrow, *length)
    learns.call("eval.py", "--probe", "linear", *common)
    found = json.loads(Path("runs/short/eval-linear.json").read_text())
    assert found["n_test"] == 1000
    assert found["top1"] >= found["top1_random_init"] + 0.05


def need_fashion_mnist():
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(3000)
def test_shapes_beat_random_initialisation_and_raw_pixels(alone):
    learns.call("-m", "shards", "build", "shapes")
    linear = learns.learn(Path("data/shapes"), Path("runs"), seed=1)["linear"]
    assert linear["n_test"] == 4000
    assert linear["top1"] >= max(linear["top1_random_init"], linear["top1_raw_pixels"]) + 0.15


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(3000)
def test_fashion_mnist_reaches_86_percent_and_more_when_fine_tuned(alone):
    """In one epoch, and two of fine-tuning (which gained 2.2 points once); what the preset reaches is in docs/results.md."""
    need_fashion_mnist()
    learns.call("-m", "shards", "build", "fashion-mnist")
    common = ("--run", "short", "--gpus", "0")
    learns.call("train.py", "--data", "fashion-mnist", "--epochs", "1", *common)
    found = {}
    for probe, length in (("linear,mlp", ()), ("finetune", ("--probe-epochs", "2"))):
        learns.call("eval.py", "--probe", probe, *length, "--no-baselines", *common)
        for name in probe.split(","):
            found[name] = json.loads(Path(f"runs/short/eval-{name}.json").read_text())
    print({name: result["top1"] for name, result in found.items()})
    assert found["linear"]["n_test"] == 10_000
    assert found["linear"]["top1"] >= 0.86
    assert found["mlp"]["top1"] >= found["linear"]["top1"] + 0.01
    assert found["finetune"]["top1"] >= found["linear"]["top1"] + 0.015
