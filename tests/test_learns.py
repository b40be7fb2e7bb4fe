"""That AMDIM learns from images: the presets for two CPU cores against what they must reach, on whole test sets."""

from pathlib import Path

import pytest

from bench import learns

ROOT = Path(__file__).parent.parent


@pytest.fixture
def in_clone(tmp_path, monkeypatch):
    """A scratch directory that looks like the repository's root to the commands."""
    for name in ("train.py", "eval.py", "errors.py", "shards", "pipeline", "model", "engine", "evaluation"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_shapes_beat_random_initialisation_and_raw_pixels(in_clone):
    learns.call("-m", "shards", "build", "shapes")
    linear = learns.learn(Path("data/shapes"), Path("runs"), seed=1)["linear"]
    assert linear["n_test"] == 4000
    assert linear["top1"] >= max(linear["top1_random_init"], linear["top1_raw_pixels"]) + 0.15


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_fashion_mnist_reaches_86_percent(in_clone):
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    learns.call("-m", "shards", "build", "fashion-mnist")
    linear = learns.learn(Path("data/fashion-mnist"), Path("runs"), seed=1)["linear"]
    assert linear["n_test"] == 10_000
    assert linear["top1"] >= 0.86
