"""Shards, a run and its checkpoint that an earlier build wrote are read: verified, continued, probed and compared.

``old_run.tar.xz`` was written by commit e0fd0e7: 20 images of ``shapes``, and a run of 8 steps whose checkpoints after step 3
were removed. ``expected.jsonl`` is what it recorded at its end.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from amdim.shards import manifest
from amdim.shards.verify import verify
from tests.forked import run_forked

ARCHIVE = Path(__file__).with_name("old_run.tar.xz")


@pytest.fixture
def home(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def done(program, *words, cwd):
    result = run_forked(program, [str(word) for word in words], cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_shards_verify(home):
    found = manifest.load(home / "shards")
    assert {name: split.samples for name, split in found.splits.items()} == {"train": 16, "val": 4}
    assert verify(home / "shards", found, fast=False, workers=1, show=lambda _: None) == []


def test_the_run_continues_as_if_it_had_not_been_interrupted(home):
    settings = ("--preset", "demo", "--config", "runs/old/config.json", "--gpus", "0", "--run", "old", "--keep", "9")
    said = done("train.py", "--data", "shards", *settings, cwd=home)
    assert "continuing runs/old/checkpoints/step-3" in said
    expected, found = (json.loads((home / file).read_text()) for file in ("expected.jsonl", "runs/old/metrics.jsonl"))
    for name in ("step", "epoch", "lr", "loss", "loss_1t5", "loss_1t7", "loss_5t5", "regulariser", "probes"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3), name


def test_the_checkpoint_is_probed_and_its_results_are_listed(home):
    kept = json.loads((home / "runs/old/eval-knn.json").read_text())
    assert kept["step"] == 8
    shutil.copytree(home / "runs/old", home / "runs/twin")
    assert "twin" in done("eval.py", "--compare", "runs/old", "runs/twin", cwd=home)
    done("eval.py", "--probe", "knn", "--run", "old", "--gpus", "0", cwd=home)
    assert json.loads((home / "runs/old/eval-knn.json").read_text())["step"] == 3


def test_its_weights_start_another_run(home):
    said = done(
        *("train.py", "--data", "shards", "--preset", "demo", "--config", "runs/old/config.json", "--gpus", "0"),
        *("--run", "new", "--init", "runs/old", "--steps", "2"),
        cwd=home,
    )
    assert "runs/old" in said
