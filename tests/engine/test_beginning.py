"""Where training begins, and begins again after a rank was lost."""

import pytest

from amdim.engine import resume
from amdim.engine.distributed import launcher


@pytest.mark.parametrize("saved", [True, False])
def test_after_a_loss_a_run_that_has_saved_nothing_begins_where_it_had_begun(tmp_path, monkeypatch, saved):
    """And not at random weights, which --resume auto would mean there."""
    asked = []
    monkeypatch.setattr(resume.runs, "find_start", lambda *asked_for: asked.append(asked_for[-1]))
    monkeypatch.setenv(launcher.RESTARTED, "1")
    if saved:
        (tmp_path / "checkpoints" / "step-5").mkdir(parents=True)
    resume.find_start_together(tmp_path, None, [], "runs/other/checkpoints/step-30")
    assert asked == ["auto" if saved else "runs/other/checkpoints/step-30"]


def test_without_a_loss_what_is_asked_for_counts(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(resume.runs, "find_start", lambda *asked_for: asked.append(asked_for[-1]))
    (tmp_path / "checkpoints" / "step-5").mkdir(parents=True)
    resume.find_start_together(tmp_path, None, [], "never")
    assert asked == ["never"]
