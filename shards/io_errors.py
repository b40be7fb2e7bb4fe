"""What an error of the system says: that one file cannot be read, which is a sample less, or that the disk or machine fails.

A disk that fails for a minute would otherwise cost good images for good, since a finished shard is not looked at again.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amdim.errors import UserError
from amdim.shards.sources.base import Rejected

OF_A_FILE = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENXIO,
        errno.ENODEV,
        errno.EOPNOTSUPP,
    }
)


@contextmanager
def failures_told(path: Path, root: Path | None = None) -> Iterator[None]:
    """Reading ``path``, a file below the source ``root``, or with None a file that many samples lie in.

    Raises:
        Rejected: the one file is gone or closed to us.
        UserError: anything else, which ends the build; what is done is kept.
    """
    try:
        yield
    except OSError as error:
        if root is not None and error.errno in OF_A_FILE and is_there(root):
            raise Rejected(f"unreadable: {error.strerror}") from None
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); mend it and type the same again: what is done is kept"
        ) from None


def is_there(root: Path) -> bool:
    """Whether the source holds anything: what was mounted there may have gone, and is no reason to reject its images."""
    return root.is_dir() and any(root.iterdir())
