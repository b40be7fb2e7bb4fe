"""Checkpoints beside the loop: what is written is the state when it was saved, one at a time, and failures are heard of."""

import threading
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from amdim.engine import checkpoint
from amdim.engine.async_checkpointer import AsyncCheckpointer
from amdim.engine.nan_guard import NotFinite
from amdim.engine.snapshot import place_for, snapshot
from amdim.engine.tensors import crc, summed, write_tensors
from amdim.errors import UserError

CONFIG = {"data": "x", "settings": {}, "seed": 0}


@pytest.fixture
def weights():
    return {"w": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last), "n": torch.tensor(3)}


@pytest.fixture
def gate(monkeypatch):
    """Writing waits until this is set."""
    opened, save = threading.Event(), checkpoint.save

    def late(*arguments, **options):
        opened.wait()
        return save(*arguments, **options)

    monkeypatch.setattr(checkpoint, "save", late)
    return opened


def state(step):
    return {"step": step, "optimizer": {"state": {0: {"m": torch.full((3,), float(step))}}, "groups": [(0.8, 0.9)]}}


def test_what_is_written_is_what_was_saved_though_training_goes_on(tmp_path, weights, gate):
    with AsyncCheckpointer(tmp_path, CONFIG) as writer:
        moments = state(1)
        writer.save(1, weights, moments)
        for tensor in (weights["w"], weights["n"], moments["optimizer"]["state"][0]["m"]):
            tensor.zero_()
        assert writer.news() is None
        gate.set()
    saved = checkpoint.load(tmp_path / "step-1")
    assert torch.equal(saved.weights["w"], torch.arange(24.0).reshape(1, 2, 3, 4))
    assert saved.weights["n"] == 3
    assert saved.trainer["optimizer"]["state"][0]["m"].tolist() == [1, 1, 1]
    assert saved.trainer["optimizer"]["groups"] == [(0.8, 0.9)]


def test_a_second_save_waits_for_the_first(tmp_path, weights, gate):
    with AsyncCheckpointer(tmp_path, CONFIG) as writer:
        writer.save(1, weights, state(1))
        threading.Timer(0.2, gate.set).start()
        writer.save(2, weights, state(2))
        assert (tmp_path / "step-1").exists()
    assert writer.last is not None
    assert writer.last.step == 2


def test_a_save_that_others_would_wait_for_is_left_out_while_the_disk_is_busy(tmp_path, weights, gate, capsys):
    with AsyncCheckpointer(tmp_path, CONFIG, patience=0.1) as writer:
        writer.save(1, weights, state(1))
        writer.save(2, weights, state(2))
        assert "step 2 is not saved: the disk is still busy" in capsys.readouterr().err
        gate.set()
        writer.thread.join()
        writer.save(3, weights, state(3))
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-3", "step-1"]


def test_sizes_and_times_are_told_once_and_stay_in_the_record(tmp_path, weights):
    with AsyncCheckpointer(tmp_path, CONFIG) as writer:
        assert set(writer.row().values()) == {None}
        writer.finish(7, weights, state(7))
        told, row = writer.news(), writer.row()
        assert writer.news() is None
    files = sum(file.stat().st_size for file in (tmp_path / "step-7").iterdir())
    assert str(told).startswith("saved step 7: ")
    assert row["checkpoint_step"] == 7
    assert row["checkpoint_mb"] == files / 1e6
    assert row["checkpoint_copy_s"] > 0
    assert row["checkpoint_write_s"] > 0


def test_the_last_step_is_not_written_twice(tmp_path, weights, monkeypatch):
    with AsyncCheckpointer(tmp_path, CONFIG) as writer:
        writer.save(1, weights, state(1))
        writer.settle()
        monkeypatch.setattr(checkpoint, "save", None)
        writer.finish(1, weights, state(1))
    with AsyncCheckpointer(tmp_path, CONFIG, saved=tmp_path / "." / "step-1") as writer:
        writer.finish(1, weights, state(1))


def test_a_full_disk_is_a_warning_and_then_there_is_room(tmp_path, weights, monkeypatch, capsys):
    write_all, full = checkpoint.write, True

    def write(*arguments):
        if full:
            raise OSError(28, "No space left on device")
        write_all(*arguments)

    monkeypatch.setattr(checkpoint, "write", write)
    with AsyncCheckpointer(tmp_path, CONFIG) as writer:
        writer.save(1, weights, state(1))
        writer.save(2, weights, state(2))  # hears of the first
        err = capsys.readouterr().err
        assert "step-1: cannot be written ([Errno 28] No space left on device)" in err
        assert "TRAINING GOES ON" in err
        with pytest.raises(UserError, match="step-3: cannot be written"):
            writer.finish(3, weights, state(3))
        assert list(tmp_path.iterdir()) == []
        full = False
        writer.finish(4, weights, state(4))
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-4"]


def test_the_next_save_tries_again(tmp_path, weights, monkeypatch, capsys):
    write_all, broken = checkpoint.write, [OSError(28, "No space left on device")]

    def write(*arguments):
        if broken:
            raise broken.pop()
        write_all(*arguments)

    monkeypatch.setattr(checkpoint, "write", write)
    with AsyncCheckpointer(tmp_path, CONFIG) as writer:
        writer.save(1, weights, state(1))
        writer.save(2, weights, state(2))
        writer.settle()
        assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-2"]
    assert "TRAINING GOES ON" in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["weights", "moments"])
def test_what_is_not_finite_is_never_written(tmp_path, weights, part, value):
    moments = state(2)
    with AsyncCheckpointer(tmp_path, CONFIG) as writer:
        writer.save(1, weights, state(1))
        (weights["w"] if part == "weights" else moments["optimizer"]["state"][0]["m"])[..., -1] = value
        with pytest.raises(NotFinite):
            writer.finish(2, weights, moments)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-1"]


def test_any_other_error_is_raised(tmp_path, weights):
    with AsyncCheckpointer(tmp_path, CONFIG) as writer:
        writer.save(1, weights | {"bad": torch.zeros(1, dtype=torch.complex64)}, state(1))
        with pytest.raises(KeyError):
            writer.settle()


def test_a_snapshot_reuses_memory_that_fits_and_keeps_strides(weights):
    first = snapshot({"a": [weights["w"]], "b": (1, "x")})
    again = snapshot({"a": [weights["w"] + 1], "b": (2, "y")}, first)
    assert again["a"][0].data_ptr() == first["a"][0].data_ptr()
    assert again["b"] == (2, "y")
    assert again["a"][0].stride() == weights["w"].stride()
    assert torch.equal(again["a"][0], weights["w"] + 1)
    other = snapshot({"a": [weights["w"].contiguous()]}, again)
    assert other["a"][0].data_ptr() != again["a"][0].data_ptr()


def test_tensors_come_back_through_safetensors_own_reader(tmp_path):
    made = {
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(5).bfloat16(),
        "map": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "strided": torch.randn(6, 4)[::2, 1:],
        "flags": torch.tensor([True, False, True]),
        "double": torch.randn(3, dtype=torch.float64),
    }
    with summed(tmp_path / "file") as file:
        write_tensors(made, file)
    found = load_file(tmp_path / "file")
    assert found.keys() == made.keys()
    assert all(found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in made.items())
    assert file.crc == crc(tmp_path / "file")


def test_a_real_full_disk_names_itself():
    """torch.save alone would say that a position in its file is unexpected."""
    from pathlib import Path

    with pytest.raises(OSError, match="No space left"), summed(Path("/dev/full")) as file:
        torch.save({"w": torch.randn(1 << 20)}, file)


def test_a_host_that_cannot_pin_memory_copies_into_other_memory(monkeypatch):
    asked = []

    def empty_like(tensor, device, pin_memory=False):
        asked.append(pin_memory)
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return torch.empty(tensor.shape, device=device)

    monkeypatch.setattr(torch, "empty_like", empty_like)
    on_gpu = SimpleNamespace(shape=(2, 3), dtype=torch.float32, stride=lambda: (3, 1), is_cuda=True)
    assert place_for(on_gpu, None).shape == (2, 3)
    assert asked == [True, False]
