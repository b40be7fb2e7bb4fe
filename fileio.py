"""One process at a time in a directory: a build in a shard set, a training in a run."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amdim.errors import UserError, warn

UNKNOWN = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # Lustre without -o flock, NFS without a lock daemon


@contextmanager
def locked(directory: Path, busy: str) -> Iterator[None]:
    """Creates ``directory`` and holds it; the kernel lets go when the process ends, however it ends.

    The empty ``.lock`` stays behind: removing it would let two processes hold two files of that name.

    Raises:
        UserError: another process holds it; ``busy`` says what it is and what to do.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("w")
    except OSError as error:
        why = f"no directory to work in ({error.strerror}); name another one, or see who may write there"
        raise UserError(f"{directory}: {why}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{directory}: {busy}") from None
        except OSError as error:
            if error.errno not in UNKNOWN:
                raise
            warn(f"{directory}: its file system knows no locks; see that one process at a time works there")
        yield
