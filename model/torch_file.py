"""Reads files of ``torch.save`` that come from anywhere, or says in a sentence what is wrong with them.

A pickle is a program. Only what builds tensors and plain values is let through; at anything else reading ends, with nothing run.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number with which torch.save began before version 1.6


def read(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU.

    Raises:
        ValueError: nothing whole or harmless is there; the text says why, in words that follow the file's name.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols: the reader's own words follow if it fails
        archive = is_archive(file)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes make the unpickler fail in any way
            size = os.fstat(file.fileno()).st_size
            ended = isinstance(error, EOFError) or "unexpected EOF" in str(error) or file.tell() >= size
            if ended and not archive:
                raise ValueError(f"is truncated: it ends after {size:,} bytes, before all of its weights") from error
            raise ValueError(diagnosis(error)) from error


def is_archive(file: BinaryIO) -> bool:
    """Whether the bytes are of the newer of the two formats of ``torch.save``, a zip archive; neither is a ValueError."""
    head = file.read(len(LEGACY))
    if not head:
        raise ValueError("is empty")
    archive = head.startswith(ZIP)
    if archive:
        check_archive(file)
    elif not LEGACY.startswith(head) and not ZIP.startswith(head):
        raise ValueError("is something else: no file that torch.save wrote")
    file.seek(0)
    return archive


def check_archive(file: BinaryIO) -> None:
    try:
        names = zipfile.ZipFile(file).namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # its table of contents stands at the end
        raise ValueError("is truncated or damaged: a zip archive without a readable table of contents at its end") from error
    kinds = {name.rpartition("/")[2] for name in names}
    if "data.pkl" not in kinds or "constants.pkl" in kinds:  # the latter is TorchScript's
        raise ValueError("is something else: a zip archive, but none that torch.save wrote")


def diagnosis(error: Exception) -> str:
    """Why ``torch.load`` failed, for people."""
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        return f"calls for {found[1]}, which is neither a weight nor a plain value; nothing of it was run"
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return "does not fit into memory"
    return f"is damaged ({(text.splitlines() or [type(error).__name__])[0]})"
