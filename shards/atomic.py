"""Files that are either whole or absent."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a write, which names no file


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Yields a file that appears at ``path``, flushed to the disk, when the block ends well; else nothing is left.

    Its temporary name is drawn, so that what is left of an earlier build, should it still run, writes to another file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename == str(temporary) or (error.filename is None and error.errno in FULL)):
            error.filename = str(path)  # the name that people know
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Makes the renames in ``directory`` outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
