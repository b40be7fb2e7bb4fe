"""What ranks say to one another beside their collectives: when all are to stop or save, and who does not answer.

They speak through the store that the ranks met at, from a thread of their own: a step costs nothing, and a rank is heard while
its main thread waits in a collective. So it is the same over gloo and NCCL.

To do something after the same step, one rank asks; every thread then says which step its rank has in hand, and no rank begins
another one before all have said so; the thing is done after the latest of these. Nobody waits inside a step for somebody who
waits between two, so this cannot lock up, however far a GPU's host runs ahead.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from typing import NoReturn, TypeVar

import torch.distributed as dist

from amdim.engine.distributed.launcher import LOST
from amdim.engine.distributed.signals import GracefulShutdown
from amdim.errors import blurt, program

T = TypeVar("T")
COMPUTING, WAITING = "computing", "waiting for the images of"
PERIOD = 0.25  # seconds between two looks at the store
GONE = "the store at which the ranks meet is gone, and with it rank 0 or the launcher: what they said last says why"
FROZEN = "the store at which the ranks meet does not answer: rank 0 or the launcher hangs, or its machine does, or the network"
GRACE = 30  # seconds that a launcher has to end the others after one has failed


class RankCoordinator:
    """Agreement between ranks.

    Args:
        rank, world: this one, and how many there are.
        store: where they meet; None where a rank is alone, which agrees with itself at once.
        timeout: seconds without a step after which this rank gives up.
    """

    def __init__(self, rank: int = 0, world: int = 1, store: dist.Store | None = None, timeout: float = 600) -> None:
        self.rank, self.world, self.store, self.timeout = rank, world, store, timeout
        self.stop: GracefulShutdown | None = None  # a rank that was told to stop does not complain of others that have gone
        self.step, self.moved = 0, time.monotonic()  # when a step was finished last
        self.doing = COMPUTING  # what, in words that a step's number ends
        self.wishes: list[str] = []
        self.round, self.beats, self.asked = 0, 0, False
        self.failing: float | None = None  # since when another rank has said that it ends
        self.agreed: tuple[int, str] | None = None
        self.changed, self.closing = threading.Condition(), threading.Event()
        self.answers = 0  # of the store
        self.thread = threading.Thread(target=self.listen, daemon=True)
        if store is not None:
            self.thread.start()
            threading.Thread(target=self.guard, daemon=True).start()

    def ask(self, word: str) -> None:
        """Asks that all ranks hear ``word`` from ``reached`` after the same step. Asking again changes nothing."""
        with self.changed:
            if word not in self.wishes:
                self.wishes.append(word)

    def reached(self, step: int) -> str | None:
        """To be called after every step: the word that all ranks agreed to hear after this one, if there is one."""
        with self.changed:
            self.step, self.moved = step, time.monotonic()
            if self.store is None:
                return self.wishes.pop(0) if self.wishes else None
            self.changed.wait_for(lambda: not self.asked)
            if self.agreed is None or self.agreed[0] > step:
                return None
            word, self.agreed = self.agreed[1], None
            return word

    def tracked(self, batches: Iterator[T]) -> Iterator[T]:
        """The same, and what a rank does of it is known to the others."""
        while True:
            self.doing = WAITING
            batch = next(batches)
            self.doing = COMPUTING
            yield batch

    def listen(self) -> None:
        """The thread."""
        assert self.store is not None
        try:
            while not self.closing.wait(PERIOD):
                self.watch(self.store)
                self.take_part(self.store)
        except dist.DistError:
            if not self.closing.is_set():
                self.give_up(f"rank {self.rank}: {GONE}")

    def guard(self) -> None:
        """A thread that never asks the store. One that is frozen keeps whoever asks it, whatever time-out it was given: it is a
        connection that stays open, on which nothing comes.
        """
        answers, silent = 0, 0.0
        while self.thread.is_alive():
            time.sleep(PERIOD)
            # Counted, not read from a clock, which goes on while this process is stopped.
            silent = silent + PERIOD if self.answers == answers else 0.0
            answers = self.answers
            if silent > self.timeout:
                if not (self.stop and self.stop.code):
                    blurt(f"{program()}: rank {self.rank}: {FROZEN}\n")
                os._exit(LOST)

    def watch(self, store: dist.Store) -> None:
        """Says that this rank is alive, and ends it where that is of no use any more."""
        self.beat()
        if self.left_alone(store):
            os._exit(LOST)
        if time.monotonic() - self.moved > self.timeout:
            self.give_up(self.silence())

    def left_alone(self, store: dist.Store) -> bool:
        """Whether another rank has printed an error and ended: its launcher would end this one too, but not every one does."""
        if self.failing is None and store.check(["error"]):
            self.failing = time.monotonic()
        self.answers += 1
        return self.failing is not None and time.monotonic() - self.failing > GRACE

    def beat(self) -> None:
        assert self.store is not None
        self.beats += 1
        self.store.set(f"beat/{self.rank}", f"{self.beats} {self.step} {self.doing}")

    def take_part(self, store: dist.Store) -> None:
        """Puts this rank's wish forward, and answers one that is on the table."""
        key = f"round/{self.round}"
        with self.changed:
            if self.agreed is None and self.wishes and not store.check([key]):
                store.compare_set(key, "", self.wishes[0])
            if self.agreed is not None or not store.check([key]):
                return
            self.asked = True
            store.set(f"{key}/{self.rank}", str(self.step + 1))
        word, answers = store.get(key).decode(), [f"{key}/{rank}" for rank in range(self.world)]
        while not self.closing.wait(PERIOD / 10) and not store.check(answers):
            self.watch(store)
        with self.changed:
            if not self.closing.is_set():
                self.agreed = max(int(each) for each in store.multi_get(answers)), word
            self.wishes = [wish for wish in self.wishes if wish != word]
            self.round, self.asked = self.round + 1, False
            self.changed.notify_all()

    def silence(self, error: str = "") -> str:
        """Who does not answer, in a sentence; where all do, ``error``, or that time is over. Takes a few seconds."""
        before = self.heard()
        for _ in range(12):
            time.sleep(PERIOD)
            self.beat()  # the others may be asking the same of this one
        after = self.heard()
        gone = [rank for rank in range(self.world) if after[rank] == before[rank] and rank != self.rank]
        last = {rank: beat[1] if beat else "0" for rank, beat in after.items()}
        if gone:
            named = " and ".join(f"rank {rank} (last heard of after step {last[rank]})" for rank in gone)
            return f"rank {self.rank} waits at step {self.step + 1} for {named}; see what became of that process or its machine"
        if error:
            return f"rank {self.rank}: {error} (all {self.world} ranks answer: {whereabouts(after)})"
        return (
            f"rank {self.rank}: no step was finished in {self.timeout:.0f} s, though all {self.world} ranks answer: "
            f"{whereabouts(after)}; --timeout allows longer steps"
        )

    def heard(self) -> dict[int, list[str] | None]:
        """Of each rank the number of its beats so far, its step, and what it does; None if it has never been heard."""
        assert self.store is not None
        keys = {rank: f"beat/{rank}" for rank in range(self.world)}
        return {
            rank: self.store.get(key).decode().split(" ", 2) if self.store.check([key]) else None for rank, key in keys.items()
        }

    def claim(self, text: str) -> bool:
        """Whether this rank is the one to print an error: the first that has one."""
        if self.store is None:
            return True
        try:
            first: bytes = self.store.compare_set("error", "", f"{self.rank} {text}")
        except dist.DistError:  # the store is gone; rank 0 may be gone with it
            return self.rank == 1
        return first.startswith(f"{self.rank} ".encode())

    def give_up(self, text: str) -> NoReturn:
        """Ends this rank from its thread, as its main thread waits for something that does not come."""
        if not (self.stop and self.stop.code) and self.claim(text):
            blurt(f"{program()}: {text}\n")
        os._exit(LOST)

    def rest(self) -> None:
        """From here on no step is expected of this rank: the last save may take its time."""
        self.moved = math.inf

    def leave(self) -> None:
        """Ends the thread."""
        self.closing.set()
        if self.store is not None:
            self.thread.join()


def whereabouts(heard: dict[int, list[str] | None]) -> str:
    """What each rank does, those that do the same together: ``rank 3 is waiting for the images of step 8``."""
    groups: dict[str, list[int]] = {}
    for number, (_, step, doing) in ((number, beat) for number, beat in heard.items() if beat):
        groups.setdefault(f"{doing} step {int(step) + 1:,}", []).append(number)
    rarest = sorted(groups.items(), key=lambda each: len(each[1]))
    return " and ".join(f"{named(numbers)} {doing}" for doing, numbers in rarest)


def named(numbers: list[int]) -> str:
    """``rank 3 is``, or ``ranks 0, 1, 2 are``."""
    return f"rank {numbers[0]} is" if len(numbers) == 1 else f"ranks {', '.join(map(str, numbers))} are"
