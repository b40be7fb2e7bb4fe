"""What ranks say to one another: two of them in one process, each with its thread and its connection to one store."""

import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from amdim import train
from amdim.engine.distributed import rank_coordinator as module
from amdim.engine.distributed.rank_coordinator import RankCoordinator


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(module, "PERIOD", 0.1)  # a beat may come late on a busy machine
    store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=20), wait_for_workers=False)
    pair = [RankCoordinator(rank, 2, store.clone(), timeout=60) for rank in range(2)]
    yield pair
    for each in pair:
        each.leave()


def walk(rank, steps, heard, wait):
    """Takes steps until a word is heard."""
    for step in range(1, steps + 1):
        wait.wait(0.001)
        if word := rank.reached(step):
            heard.append((step, word))
            return


@pytest.mark.timeout(60)
@pytest.mark.parametrize("asking", [0, 1])
def test_both_hear_a_word_after_the_same_step_wherever_they_stand(two, asking):
    heard, ahead = [], threading.Event()
    for step in range(1, 8):
        two[1].reached(step)  # further than the other
    two[asking].ask("save")
    threads = [threading.Thread(target=walk, args=(rank, 10**6, heard, ahead)) for rank in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first, word), (second, other) = heard
    assert (word, other) == ("save", "save")
    assert first == second


class Clock:
    """A ``SaveTimer`` of minutes that are over after given steps."""

    minutes = True

    def __init__(self, *steps):
        self.steps = steps

    def __call__(self, step):
        return step in self.steps


@pytest.mark.timeout(60)
def test_minutes_are_those_of_rank_0_and_both_save_after_the_same_step(two):
    saved, wait = {0: [], 1: []}, threading.Event()

    def train_on(rank, clock):
        for step in range(1, 10**6):
            wait.wait(0.001)
            saving, _ = train.agree(step, SimpleNamespace(code=None), clock, rank)
            if saving:
                saved[rank.rank].append(step)
                return

    clocks = Clock(5), Clock(1, 2, 3)  # the other rank's clock is ahead, and is not looked at
    threads = [threading.Thread(target=train_on, args=each) for each in zip(two, clocks, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert saved[0] == saved[1]
    assert saved[0][0] >= 5


@pytest.mark.timeout(60)
def test_a_rank_that_no_longer_beats_is_named_with_its_last_step(two):
    two[1].reached(41)
    while not two[0].heard()[1] or two[0].heard()[1][1] != "41":
        pass
    assert "no step was finished in 60 s, though all 2 ranks answer: rank" in two[0].silence()
    assert two[0].silence("it broke").startswith("rank 0: it broke (all 2 ranks answer: rank")
    two[1].leave()
    two[0].reached(42)
    assert two[0].silence().startswith("rank 0 waits at step 43 for rank 1 (last heard of after step 41)")


@pytest.mark.timeout(60)
def test_a_rank_that_answers_but_hangs_is_named_with_what_it_does(two):
    """Its thread goes on to beat while its images do not come, as from a disk that does not answer."""
    for rank in two:
        rank.reached(41)
    batches = two[1].tracked(iter(["first"]))
    assert next(batches) == "first"
    assert two[1].doing == module.COMPUTING
    two[1].doing = module.WAITING
    words = two[0].silence()
    assert "rank 1 is waiting for the images of step 42" in words
    assert "rank 0 is computing step 42" in words


def test_what_most_ranks_do_is_said_last():
    heard = {0: ["9", "7", "computing"], 1: ["9", "7", "computing"], 2: ["8", "6", "waiting for the images of"], 3: None}
    assert module.whereabouts(heard) == "rank 2 is waiting for the images of step 7 and ranks 0, 1 are computing step 8"


@pytest.mark.timeout(60)
def test_two_ranks_that_ask_at_once_hear_each_other(two, monkeypatch):
    """Each sleeps meanwhile in the thread that beats for it."""
    for rank in two:
        rank.reached(3)
        rank.closing.set()
        rank.thread.join()
    found = {}
    threads = [threading.Thread(target=lambda each=each: found.update({each.rank: each.silence()})) for each in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("all 2 ranks answer" in words for words in found.values()), found


@pytest.mark.timeout(60)
def test_a_rank_that_waits_for_an_answer_is_ended_too_when_another_has_failed(two, monkeypatch):
    ended = threading.Event()

    def end(code):
        assert code == module.LOST
        ended.set()
        two[0].closing.set()

    monkeypatch.setattr(module, "GRACE", 0.3)
    monkeypatch.setattr(module.os, "_exit", end)
    two[1].leave()  # it will not say which step it has in hand
    assert two[1].claim("it broke")
    two[0].ask("save")
    assert ended.wait(20)


def test_one_rank_alone_prints_an_error(two):
    assert two[1].claim("mine")
    assert not two[0].claim("mine, too")
    assert two[1].claim("again")


def test_a_rank_by_itself_hears_what_it_asks_at_once():
    alone = RankCoordinator()
    alone.ask("save")
    alone.ask("save")
    assert alone.reached(3) == "save"
    assert alone.reached(4) is None
