"""Arrays that a GPU reads late are held until it has, and no more of them than some batches; events are made up here."""

import time
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

from amdim import train
from amdim.pipeline import Views
from amdim.pipeline.cuda_keepalive import AHEAD, KeepAlive


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
        time.sleep(1e-4)
        Event.done = max(Event.done, self.number)


@pytest.fixture
def held(monkeypatch):
    monkeypatch.setattr(Event, "done", 0)
    monkeypatch.setattr(Event, "recorded", 0)
    with patch.object(torch.cuda, "Event", Event), patch.object(torch.cuda, "current_stream", lambda d: f"the stream of {d}"):
        yield KeepAlive(torch.device("cuda", 1))


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
    before = KeepAlive.waited
    for number in range(1, AHEAD + 3):
        held.hold(torch.tensor(number))
    assert KeepAlive.waited > before
    assert Event.done == 2
    assert numbers(held) == list(range(3, AHEAD + 3))


def test_waiting_for_the_gpu_is_no_waiting_for_data(monkeypatch):
    """A batch that comes after 7 s, 5 of which went by until the GPU was near enough."""
    now = [100.0]
    monkeypatch.setattr(train.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(KeepAlive, "waited", 1.0)

    def batches():
        now[0], KeepAlive.waited = 107.0, 6.0
        yield Views(None, None, torch.zeros(1)), torch.zeros(1)

    nothing = SimpleNamespace(check=lambda: None)
    trainer = SimpleNamespace(
        device=torch.device("cpu"), meter=SimpleNamespace(data_s=0.5), update=lambda *_: None, watch=nothing
    )
    train.advance(trainer, batches())
    assert trainer.meter.data_s == 2.5


def test_at_the_end_all_is_waited_for(held):
    for number in (1, 2):
        held.hold(torch.tensor(number))
    held.release()
    assert (Event.done, numbers(held)) == (2, [])


def test_on_a_cpu_nothing_is_held():
    held = KeepAlive(torch.device("cpu"))
    held.hold(torch.ones(1))
    assert not held.queue
