"""Features on disk: what is kept and what is not, and what others may do to it meanwhile."""

import errno
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from amdim.errors import UserError
from amdim.evaluation import features
from amdim.evaluation.feature_cache import FeatureCache
from amdim.evaluation.features import labelled
from amdim.evaluation.probes import linear
from amdim.evaluation.probes.knn import train_knn
from amdim.evaluation.probes.mlp import train_mlp


def fill(files, name="a"):
    with files.new(name, (1, 4, 3)) as array:
        array[:] = np.arange(12).reshape(1, 4, 3)


EXPECTED = torch.arange(12.0).half().view(1, 4, 3)


def test_what_is_not_kept_has_no_name(tmp_path):
    files = FeatureCache(tmp_path / "features", keep=False)
    with files.new("a", (1, 4, 3)) as array:
        assert list(tmp_path.iterdir()) == []  # nothing for a killed process to leave
        array[:] = np.arange(12).reshape(1, 4, 3)
    assert torch.equal(files.find("a"), EXPECTED)
    assert list(tmp_path.iterdir()) == []
    assert FeatureCache(tmp_path / "features", keep=False).find("a") is None


def test_what_is_kept_is_found_and_outlives_its_file(tmp_path):
    fill(FeatureCache(tmp_path / "features", keep=True))
    later = FeatureCache(tmp_path / "features", keep=False)
    assert torch.equal(later.find("a"), EXPECTED)
    (tmp_path / "features" / "a.npy").unlink()
    assert torch.equal(later.find("a"), EXPECTED)


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_not_finished_is_not_there(tmp_path, keep):
    files = FeatureCache(tmp_path / "features", keep)
    with pytest.raises(RuntimeError), files.new("a", (1, 4, 3)):
        raise RuntimeError
    assert files.find("a") is None
    assert not list(tmp_path.glob("features/*"))


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("amdim.evaluation.feature_cache.os.posix_fallocate", full)
    files = FeatureCache(tmp_path / "features", keep=False)
    with pytest.raises(UserError, match=f"{tmp_path}: the disk is full, with 2.0 GB wanted"), files.new("a", (1, 1000, 10**6)):
        pass
    assert files.find("a") is None


TRAINERS = {"linear": linear.train_linear, "mlp": partial(train_mlp, epochs=0.02), "knn": train_knn}


@pytest.mark.long
@pytest.mark.parametrize("probe", TRAINERS)
def test_probes_of_a_large_file_take_little_memory(probe, tmp_path, monkeypatch):
    """Features of 256 MB on disk, 512 in float32; memory is what the system could not take back by dropping pages of files."""
    monkeypatch.setattr(features, "KEPT", 0)  # as if they were beyond what a probe may hold
    monkeypatch.setattr(linear, "ITERATIONS", 5)
    monkeypatch.setattr(linear, "PENALTIES", (1e-1,))
    few, many = (features_of(n, FeatureCache(tmp_path, keep=False)) for n in (2_000, 250_000))
    TRAINERS[probe](few, 10, torch.device("cpu"))  # what libraries load when they are first used is not meant
    with growth() as grown:
        fitted = TRAINERS[probe](many, 10, torch.device("cpu"))
        assert (fitted.classify(many.x[0, :100].float()).argmax(1) == many.y[:100]).float().mean() > 0.5
    assert max(grown) < 128e6


def features_of(n, files):
    """Ten classes in a file."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, n)
    with files.new(str(n), (1, n, 512)) as array:
        for start in range(0, n, 2_000):
            noise = rng.standard_normal((2_000, 512), np.float32)
            noise[range(2_000), y[start : start + 2_000]] += 4
            array[0, start : start + 2_000] = noise
    return labelled(files.find(str(n)), torch.from_numpy(y))


@contextmanager
def growth():
    """How many bytes of its own this process holds beyond those at the start, looked at again and again."""

    def own():
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) * 1024

    before, ended, grown = own(), threading.Event(), [0]

    def watch():
        while not ended.wait(0.005):
            grown.append(own() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield grown
    finally:
        ended.set()
        thread.join()
