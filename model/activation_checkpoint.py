"""Computing again in the backward pass what the forward pass did not keep, exactly and without side effects.

Running statistics are updated by the first computation alone, and what ranks exchanged in it is noted for the second, so that
neither a statistic nor a collective happens twice. The second computation has the bits of the first, as the same kernels see the
same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.utils.checkpoint import checkpoint

Statistics = tuple[Tensor, Tensor]


class Computation:
    """One of the two computations of a function, as a context; both share ``notes``, what normalisations exchanged, in order."""

    current: Computation | None = None  # the one in hand: modules deep inside ask for it, and one thread at a time computes

    def __init__(self, notes: list[Statistics], again: bool) -> None:
        self.notes, self.again, self.read = notes, again, 0
        self.outer: Computation | None = None

    def __enter__(self) -> None:
        self.outer, self.read = Computation.current, 0
        Computation.current = self

    def __exit__(self, *_: object) -> None:
        Computation.current = self.outer


def again() -> bool:
    """Whether the computation in hand is a repetition."""
    return Computation.current is not None and Computation.current.again


def once(exchange: Callable[[], Statistics]) -> Statistics:
    """What ``exchange`` gives, or in a repetition what it gave."""
    now = Computation.current
    if now is None:
        return exchange()
    if not now.again:
        now.notes.append(exchange())
        return now.notes[-1]
    now.read += 1
    return now.notes[now.read - 1]


def checkpointed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)``, of which only ``x`` is kept for the backward pass. It must draw no random numbers."""
    notes: list[Statistics] = []

    def contexts() -> tuple[Computation, Computation]:
        return Computation(notes, again=False), Computation(notes, again=True)

    y: Tensor = checkpoint(function, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return y
