"""Arrays that a GPU reads late are held until it has, and no more of them than some batches; events are made up here."""

from unittest.mock import patch

import pytest
import torch

from pipeline.in_use import AHEAD, InUse


class Event:
    """One of a queue that is done up to a number; to wait for one is to be done up to it."""

    done = recorded = 0

    def record(self, stream):
        assert stream == "the stream of cuda:1"
        Event.recorded += 1
        self.number = Event.recorded

    def query(self):
        return self.number <= Event.done

    def synchronize(self):
        Event.done = max(Event.done, self.number)


@pytest.fixture
def held(monkeypatch):
    monkeypatch.setattr(Event, "done", 0)
    monkeypatch.setattr(Event, "recorded", 0)
    with patch.object(torch.cuda, "Event", Event), patch.object(torch.cuda, "current_stream", lambda d: f"the stream of {d}"):
        yield InUse(torch.device("cuda", 1))


def numbers(held):
    return [int(array) for _, (array,) in held.queue]


def test_what_the_gpu_is_past_is_let_go_of(held):
    for number in (1, 2, 3):
        held.hold(torch.tensor(number))
    assert numbers(held) == [1, 2, 3]
    Event.done = 2
    held.hold(torch.tensor(4))
    assert numbers(held) == [3, 4]


def test_a_host_that_is_far_ahead_waits_for_the_oldest(held):
    for number in range(1, AHEAD + 3):
        held.hold(torch.tensor(number))
    assert Event.done == 2
    assert numbers(held) == list(range(3, AHEAD + 3))


def test_at_the_end_all_is_waited_for(held):
    for number in (1, 2):
        held.hold(torch.tensor(number))
    held.release()
    assert (Event.done, numbers(held)) == (2, [])


def test_on_a_cpu_nothing_is_held():
    held = InUse(torch.device("cpu"))
    held.hold(torch.ones(1))
    assert not held.queue
