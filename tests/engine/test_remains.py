"""A record without a checkpoint is no run, and is removed."""

import json

import pytest
import torch

from amdim.engine import checkpoint
from amdim.engine.run_dir import inhabited
from amdim.errors import UserError

CONFIG = {"data": "x", "settings": {}, "seed": 0}


def names(run):
    return sorted(path.name for path in run.iterdir())


def record(run):
    (run / "metrics.jsonl").write_text("{}\n")
    (run / "events.out.tfevents.1").write_text("")
    (run / "checkpoints").mkdir()


def test_what_ends_before_its_first_checkpoint_leaves_only_the_lock(tmp_path):
    def fail():
        with inhabited(tmp_path / "run", CONFIG):
            record(tmp_path / "run")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path / "run") == [".lock"]


def test_what_a_kill_left_is_cleared_before_training(tmp_path):
    record(tmp_path)
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "notes.txt").write_text("somebody's")
    with inhabited(tmp_path, CONFIG):
        assert names(tmp_path) == [".lock", "config.json", "notes.txt"]
        assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


def test_somebody_elses_configuration_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text('{"theme": "dark"}')
    with pytest.raises(UserError, match="not a run's configuration"), inhabited(tmp_path, CONFIG):
        pass
    assert names(tmp_path) == [".lock", "config.json"]


def test_a_start_on_a_full_disk_is_no_other_program(tmp_path):
    (tmp_path / "config.json.tmp").write_text("{")
    with inhabited(tmp_path, CONFIG):
        assert "config.json" in names(tmp_path)


def test_another_programs_record_is_not_removed(tmp_path):
    record(tmp_path)
    before = names(tmp_path)
    with pytest.raises(UserError, match="of another program"), inhabited(tmp_path, CONFIG):
        pass
    assert names(tmp_path) == sorted([".lock", *before])


def test_what_another_process_saved_meanwhile_is_not_forgotten(tmp_path):
    there = checkpoint.steps(tmp_path / "checkpoints")
    checkpoint.save(tmp_path / "checkpoints", 9, {"w": torch.ones(1)}, {"step": 9}, CONFIG)
    with pytest.raises(UserError, match="has saved here just now"), inhabited(tmp_path, CONFIG, 0, there):
        pass
    assert names(tmp_path / "checkpoints") == ["step-9"]


def test_a_run_with_a_checkpoint_stays(tmp_path):
    with inhabited(tmp_path, CONFIG):
        record(tmp_path)
        checkpoint.save(tmp_path / "checkpoints", 1, {"w": torch.ones(1)}, {"step": 1}, CONFIG)
    assert names(tmp_path) == [".lock", "checkpoints", "config.json", "events.out.tfevents.1", "metrics.jsonl"]


def test_a_run_goes_on_with_a_full_disk(tmp_path, monkeypatch):
    """Its configuration is what it was; another is refused by name."""
    config = CONFIG | {"preset": "demo"}
    with inhabited(tmp_path, config):
        checkpoint.save(tmp_path / "checkpoints", 1, {"w": torch.ones(1)}, {"step": 1}, config)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "flush", full)
    with inhabited(tmp_path, config, step=1):
        assert json.loads((tmp_path / "config.json").read_text()) == config
    changed = inhabited(tmp_path, config | {"seed": 1}, step=1)
    with pytest.raises(UserError, match=r"config.json: cannot be written .*make room"), changed:
        pass
    assert json.loads((tmp_path / "config.json").read_text()) == config
