"""Shard sets that many tests read: small, made once a session through the same code that users run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Two busy test processes with as many threads as cores spend their time waiting for one another.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A machine may be busy: how long an example takes is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 120 JPEG photographs of two classes, in sizes that differ, as a user would have them."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(120):
        name = ("cats", "dogs")[number % 2]
        (root / name).mkdir(exist_ok=True)
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(root / name / f"{number}.jpg", quality=95)
    return root


@pytest.fixture(scope="session")
def photo_set(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``photos`` as shards: 96 for training, 24 for validation."""
    out = tmp_path_factory.mktemp("sets") / "photos"
    build("folder", "--src", str(photos), "--out", str(out), "--val", "0.2", "--workers", "1")
    return out


@pytest.fixture(scope="session")
def trained(photo_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of three steps, ``one``."""
    from tests.test_train import train

    cwd = tmp_path_factory.mktemp("trained")
    train(photo_set, "one", "--steps", "3", cwd=cwd)
    return cwd


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run, in the working directory."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    for events in (tmp_path / "runs" / "one").glob("events*"):
        events.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "one"


def build(*arguments: str) -> None:
    """``python -m shards build`` in this process."""
    from typer.testing import CliRunner

    from amdim.shards.cli import app

    result = CliRunner().invoke(app, ["build", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
