"""When a checkpoint is due."""

import pytest

from amdim.engine import checkpoint_interval
from amdim.engine.checkpoint_interval import CheckpointInterval
from amdim.errors import UsageError


def test_every_so_many_steps():
    due = CheckpointInterval("3")
    assert [step for step in range(1, 10) if due(step)] == [3, 6, 9]


def test_every_so_many_minutes(monkeypatch):
    """Counted from the save before, however long a step takes."""
    now = 1000.0
    monkeypatch.setattr(checkpoint_interval.time, "monotonic", lambda: now)
    due, found = CheckpointInterval("30m"), []
    for step, minute in enumerate((0, 29.9, 30, 31, 59.9, 75, 100, 105)):
        now = 1000.0 + 60 * minute
        found += [minute] if due(step) else []
    assert found == [30, 75, 105]


@pytest.mark.parametrize("every", ["soon", "0", "0m", "-3", "1.5m", "m", ""])
def test_what_is_no_interval_is_refused(every):
    with pytest.raises(UsageError, match="as in 500, or of minutes, as in 30m"):
        CheckpointInterval(every)
