"""Published files, fetched once into the user's cache: resumed where a connection broke, kept only if the checksum is right."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from amdim.errors import UserError

TIMEOUT = 30  # seconds without an answer
CHUNK = 2**20
NOTHING_LEFT = 416  # HTTP's answer to a range that starts at the end of the file


@dataclass(frozen=True)
class Published:
    """A file as its makers publish it: the address and the MD5 (hexadecimal)."""

    address: str
    md5: str

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]


def cache(data: str) -> Path:
    """The directory that keeps the downloads of a data set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amdim" / data


def fetch(published: Published, directory: Path, otherwise: str) -> Path:
    """The file in ``directory``, downloaded unless it is there; raises UserError, which ends in ``otherwise``: what else to do.

    What has come is in ``NAME.part`` until it is whole; the next call goes on from there.
    """
    path = directory / published.name
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        _download(published.address, part)
    except (OSError, HTTPException) as error:
        raise UserError(f"{published.address}: no answer, or not all of it ({error}); run it again, or {otherwise}") from None
    with part.open("rb") as file:
        whole = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == published.md5
    if not whole:
        part.unlink()
        raise UserError(f"{published.address}: its MD5 is not the published one; run it again, or {otherwise}")
    part.replace(path)
    return path


def _download(address: str, part: Path) -> None:
    """Appends to ``part`` what it lacks; starts anew where the server cannot go on."""
    have = part.stat().st_size if part.exists() else 0
    try:
        answer = urlopen(Request(address, headers={"Range": f"bytes={have}-"} if have else {}), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == NOTHING_LEFT and have:
            return
        raise
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:  # 206: the server goes on where we stopped
        have = file.tell()
        total = have + int(answer.headers.get("Content-Length") or 0)
        with _progress(address, have, total) as advance:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                advance(len(chunk))
            if file.tell() < total:
                raise OSError(f"{file.tell():,} of {total:,} bytes came")


@contextmanager
def _progress(address: str, have: int, total: int) -> Iterator[Callable[[int], Any]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"fetching {address}, {(total - have) / 1e6:,.0f} MB", soft_wrap=True, highlight=False, markup=False)
    columns = (
        TextColumn(address.rpartition("/")[2]),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total or None, completed=have)
        yield lambda size: bar.advance(task, size)
