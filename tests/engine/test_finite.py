"""Numbers that are no numbers are noticed at their step, and the step is remembered."""

import pytest
import torch

from amdim.engine.nan_guard import NonFiniteGuard, NotFinite, check_state

GOOD = torch.tensor(1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_the_first_step_is_named(value, place):
    watch, bad = NonFiniteGuard(torch.device("cpu")), [GOOD, GOOD]
    bad[place] = torch.tensor(value, dtype=torch.float64)
    for step in (1, 2):
        watch.note(step, [GOOD, GOOD])
        watch.check()
    for step in (3, 4):
        watch.note(step, bad)
    watch.note(5, [GOOD, GOOD])
    for wait in (False, True):
        with pytest.raises(NotFinite, match="at step 3;"):
            watch.check(wait)


class Event:
    """Of a device whose copies arrive when the test says so."""

    def __init__(self):
        self.here, self.recorded = True, 0

    def query(self):
        return self.here

    def record(self):
        self.here, self.recorded = False, self.recorded + 1


def test_what_a_device_noted_is_read_when_its_copy_is_there():
    """As on a GPU: the host looks without waiting, and starts another copy when the one before has come."""
    watch, bad = NonFiniteGuard(torch.device("cpu")), torch.tensor(float("nan"))
    watch.arrived = Event()
    watch.note(1, [GOOD])
    watch.note(2, [bad])  # the copy of step 1 is on its way
    watch.check()
    assert watch.arrived.recorded == 1
    watch.arrived.here = True
    watch.check()  # step 1 was good
    watch.note(3, [GOOD])  # starts the copy that knows of step 2
    watch.check()
    watch.arrived.here = True
    with pytest.raises(NotFinite, match="at step 2;"):
        watch.check()


def test_states_are_looked_at_to_the_bottom():
    check_state({"a": [torch.tensor(3), (torch.full((4,), 3e38), "text", None)], "empty": torch.zeros(0)})
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        with pytest.raises(NotFinite):
            check_state({"a": [{"b": torch.tensor([0, float("nan"), 0], dtype=dtype)}]})
