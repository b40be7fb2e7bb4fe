"""One build a directory at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import UserError


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Creates ``directory`` and holds it; the kernel lets go when the process ends, however it ends.

    The empty ``.lock`` stays behind: removing it would let two builds hold two files of that name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{directory}: another build is writing here; wait for it, or choose another --out") from None
        yield
