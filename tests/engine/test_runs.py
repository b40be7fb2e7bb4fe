"""Which run and which start a command means."""

import os
import re
from pathlib import Path

import pytest
import torch

from amdim.engine import runs
from amdim.errors import UsageError


def test_the_latest_run_is_that_of_the_newest_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, when in (("a", 100), ("b", 300), ("c", 200)):
        saved = tmp_path / "runs" / name / "checkpoints" / "step-1"
        saved.mkdir(parents=True)
        os.utime(saved, (when, when))
    (tmp_path / "runs" / "begun").mkdir()
    assert runs.latest_run() == Path("runs/b")


@pytest.mark.parametrize(
    ("own", "saved", "same"),
    [
        (None, None, True),
        ("a", None, False),
        (None, "runs/a/checkpoints/step-5", False),
        ("a", "runs/a/checkpoints/step-5", True),
        ("runs/a", "runs/a/checkpoints/step-5", True),
        ("runs/a/checkpoints/step-5", "runs/a/checkpoints/step-5", True),
        ("runs/a/checkpoints/step-9", "runs/a/checkpoints/step-5", False),
        ("b", "runs/a/checkpoints/step-5", False),
        ("runs/a", "runs/a", True),  # as older runs have it
    ],
)
def test_a_start_is_named_by_its_checkpoint_or_its_run(own, saved, same):
    assert runs.same_start(own, saved) is same


def test_results_of_a_checkpoint_go_to_its_run_from_wherever_it_is_named(tmp_path, monkeypatch):
    saved = tmp_path / "runs" / "a" / "checkpoints" / "step-5"
    saved.mkdir(parents=True)
    for place, name, run in (
        (tmp_path, "runs/a/checkpoints/step-5", Path("runs/a")),
        (saved.parent, "step-5", tmp_path / "runs" / "a"),
        (saved, "../step-5", tmp_path / "runs" / "a"),
    ):
        monkeypatch.chdir(place)
        assert runs.evaluated(None, Path(name)) == run
    with pytest.raises(UsageError, match="no checkpoint there"):
        runs.evaluated(None, tmp_path)
    with pytest.raises(UsageError, match="say with --run"):
        runs.evaluated(None, tmp_path / "step-5")


def test_a_processor_is_known_by_its_name_and_its_vector_instructions(monkeypatch):
    """Either may change the last bits."""
    info = Path("/proc/cpuinfo").read_text()
    assert not (found := re.search(r"^model name\s*:\s*(.*)$", info, re.MULTILINE)) or found[1] in runs.processor()
    before = runs.machine(torch.device("cpu"))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SOME OTHER")
    after = runs.machine(torch.device("cpu"))
    assert after["processor"] != before["processor"]
    assert after["processor"].endswith("SOME OTHER")
