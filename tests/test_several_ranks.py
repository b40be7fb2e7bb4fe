"""Training in several processes through the command line: N ranks see, compute and save what one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SMALL = ("--gpus", "0", "--preset", "demo", "--batch-size", "16", "--amp", "off")


def command(data, name, *more):
    return [sys.executable, str(ROOT / "train.py"), *map(str, ("--data", data, *SMALL, "--run", name, *more))]


def train(data, name, *more, cwd, code=0):
    result = subprocess.run(
        command(data, name, *more), cwd=cwd, capture_output=True, text=True, check=False, timeout=280, env=environment()
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    names = ("loss", "loss_1t5", "loss_1t7", "loss_5t5", "regulariser", "probes")
    return torch.tensor([[row[name] for name in names] for row in rows(run)], dtype=torch.float64)


def difference(a, b):
    """The largest relative difference of two records' losses."""
    one, other = losses(a), losses(b)
    assert one.shape == other.shape
    return ((one - other).abs() / other.abs()).max().item()


@pytest.fixture(scope="module")
def alone(photo_set, tmp_path_factory):
    """A run of one process: 24 steps, four epochs, two log lines."""
    cwd = tmp_path_factory.mktemp("alone")
    train(photo_set, "alone", "--steps", "24", cwd=cwd)
    return cwd / "runs" / "alone"


@pytest.fixture(scope="module")
def two(photo_set, tmp_path_factory):
    """The same in two processes, saved in mid-epoch."""
    cwd = tmp_path_factory.mktemp("two")
    result = train(photo_set, "two", "--steps", "24", "--procs", "2", "--save-every", "9", cwd=cwd)
    return cwd / "runs" / "two", result


def test_two_ranks_have_the_losses_of_one(alone, two):
    assert difference(two[0], alone) < 1e-3


def test_one_rank_speaks(two):
    lines = two[1].stdout.splitlines()
    assert sum(line.startswith("step 20/24") for line in lines) == 1
    assert sum(line.startswith("done:") for line in lines) == 1
    (row,) = (line for line in lines if line.startswith("ranks"))
    assert "2 over gloo" in row
    assert two[1].stderr == ""


@pytest.mark.parametrize("ranks", [1, 4])
def test_another_number_of_ranks_goes_on(alone, two, photo_set, tmp_path, ranks):
    """From the two ranks' checkpoint in mid-epoch, to the losses of one that was never stopped."""
    moved = tmp_path / "runs" / "two"
    shutil.copytree(two[0] / "checkpoints" / "step-18", moved / "checkpoints" / "step-18")
    result = train(photo_set, "two", "--steps", "24", "--procs", ranks, "--save-every", "9", cwd=tmp_path)
    assert "step-18" in result.stdout
    assert f"warning: ranks was 2 and is {ranks}" in result.stdout
    last = losses(moved)[-1] / losses(alone)[-1]  # the sums of steps 21 to 24; the row of step 20 is in the other directory
    assert (last - 1).abs().max() < 1e-3
