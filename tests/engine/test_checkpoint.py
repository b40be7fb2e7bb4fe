"""Checkpoints: whole or absent, the newest that loads, no code execution."""

import pickle

import pytest
import torch

from amdim.engine import checkpoint
from amdim.errors import UserError
from tests.commands import write_sums

WEIGHTS = {"encoder.a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}

CONFIG = {"data": "x", "settings": {}, "seed": 0}


def put(root, step, **options):
    return checkpoint.save(root, step, WEIGHTS, {"step": step}, CONFIG, **options)


def test_round_trip(tmp_path):
    path = put(tmp_path, 7)
    saved = checkpoint.load(path)
    assert path.name == "step-7"
    assert all(torch.equal(saved.weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert (saved.trainer, saved.config) == ({"step": 7}, CONFIG)


def test_channels_last_weights_come_back_equal(tmp_path):
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    path = checkpoint.save(tmp_path, 1, {"w": weight}, {"step": 1}, CONFIG)
    assert torch.equal(checkpoint.load(path).weights["w"], weight)


def test_the_last_few_are_kept_and_the_newest_is_by_number(tmp_path):
    for step in (9, 10, 100):
        put(tmp_path, step, keep=2)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-100", "step-10"]


def damage_file(file, damage):
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "flipped bit":
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    else:
        file.write_bytes(content[: 0 if damage == "empty" else -8])


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.pt", "config.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "flipped bit"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys, name, damage):
    put(tmp_path, 1)
    damage_file(put(tmp_path, 2) / name, damage)
    saved = checkpoint.latest(tmp_path)
    warning = capsys.readouterr().err
    assert "step-2 is damaged" in warning
    assert "step-1 is used instead" in warning
    assert saved is not None
    assert saved.path.name == "step-1"


@pytest.mark.parametrize("position", range(0, 1000, 37))
@pytest.mark.parametrize("name", ["model.safetensors", "trainer.pt"])
def test_every_flipped_bit_is_noticed(tmp_path, name, position):
    """Either format reads most of them without a word."""
    file = put(tmp_path, 1) / name
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= 1 << position % 8
    file.write_bytes(content)
    with pytest.raises(checkpoint.DAMAGE):
        checkpoint.load(tmp_path / "step-1")


def test_missing_checksums_are_damage(tmp_path, capsys):
    put(tmp_path, 1)
    (put(tmp_path, 2) / "checksums.json").unlink()
    saved = checkpoint.latest(tmp_path)
    assert saved is not None
    assert saved.path.name == "step-1"
    assert "step-2 is damaged" in capsys.readouterr().err


def test_damaged_checksums_are_damage_too(tmp_path, capsys):
    put(tmp_path, 1)
    file = put(tmp_path, 2) / "checksums.json"
    for content in ("", "{}", "[]", "null", '{"model.safetensors": 0}'):
        file.write_text(content)
        saved = checkpoint.latest(tmp_path)
        assert saved is not None
        assert saved.path.name == "step-1"
        assert "step-2 is damaged" in capsys.readouterr().err


def test_several_damaged_ones_are_all_named(tmp_path, capsys):
    for step in (1, 2, 3):
        put(tmp_path, step, keep=3)
    for step in (2, 3):
        damage_file(tmp_path / f"step-{step}" / "trainer.pt", "truncated")
    assert checkpoint.latest(tmp_path) is not None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(f"step-{step} is damaged" in line and "step-1 is used" in line for step, line in zip((3, 2), lines, strict=True))
    damage_file(tmp_path / "step-1" / "trainer.pt", "empty")
    assert checkpoint.latest(tmp_path) is None
    assert "no good one before it" in capsys.readouterr().err


def test_what_did_not_load_is_kept_though_its_sums_are_right(tmp_path):
    """As a file that another version of torch wrote may be."""
    put(tmp_path, 1)
    path = put(tmp_path, 2)
    torch.save({"step": Payload()}, path / "trainer.pt")
    write_sums(path)
    assert checkpoint.latest(tmp_path).path.name == "step-1"
    checkpoint.forget_after(tmp_path, 1)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["damaged-step-2", "step-1"]


def test_going_back_puts_aside_what_came_after(tmp_path, capsys):
    for name in ("left-step-2", "left-step-2-2"):
        for step in (1, 2, 3):
            put(tmp_path, step, keep=3)
        damage_file(tmp_path / "step-3" / "trainer.pt", "truncated")
        checkpoint.forget_after(tmp_path, 1)
        assert (tmp_path / name).is_dir()
        assert f"step-2: is of a later step than the run goes on from, and now called {name}; " in capsys.readouterr().err
    assert {path.name for path in tmp_path.glob("damaged-*")} == {"damaged-step-3", "damaged-step-3-2"}
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-1"]
    checkpoint.load((tmp_path / "left-step-2").rename(tmp_path / "step-2"))


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), PermissionError(13, "Permission denied"), MemoryError()])
def test_a_disk_that_fails_costs_no_checkpoint(tmp_path, monkeypatch, error):
    """The newest may be good: to go on from the one before it would throw work away."""
    for step in (1, 2):
        put(tmp_path, step)

    def fail(_):
        raise error

    monkeypatch.setattr(checkpoint, "crc", fail)
    if isinstance(error, MemoryError):
        with pytest.raises(MemoryError):
            checkpoint.latest(tmp_path)
    else:
        with pytest.raises(UserError, match=r"step-2: cannot be read now .*; the same command tries again"):
            checkpoint.latest(tmp_path)


def test_an_old_one_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch, capsys):
    put(tmp_path, 1)

    def busy(path, **_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda path, **options: None if options else busy(path))
    assert put(tmp_path, 2, keep=1).name == "step-2"
    assert "step-1: cannot be removed (Device or resource busy)" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{}", "[]", "3", "null"])
def test_a_file_that_loads_but_is_another_is_damage(tmp_path, content):
    put(tmp_path, 1)
    (put(tmp_path, 2) / "config.json").write_text(content)
    saved = checkpoint.latest(tmp_path)
    assert saved is not None
    assert saved.path.name == "step-1"


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "trainer.pt")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space"):
        put(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_checkpoint_is_not_seen(tmp_path):
    put(tmp_path, 1)
    (tmp_path / ".tmp-step-2").mkdir()
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-1"]
    checkpoint.forget_after(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def test_hostile_pickles_are_refused(tmp_path, capsys):
    path = put(tmp_path, 1)
    (path / "trainer.pt").write_bytes(pickle.dumps(Payload(), protocol=2))
    write_sums(path)  # who can write the one can write the other
    with pytest.raises(checkpoint.DAMAGE):
        checkpoint.load(path)
    torch.save({"step": Payload()}, path / "trainer.pt")
    write_sums(path)
    with pytest.raises(checkpoint.DAMAGE, match="eights"):
        checkpoint.load(path)
    assert "executed" not in capsys.readouterr().out
