"""Which shards of an unfinished set are done: a line each, so that a build that was cut off goes on where it was.

The first line says what is being built. Lines are flushed to the disk one by one; one that was cut off by a power cut is dropped,
and its shard, whose bytes depend on nothing but the input, is written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from amdim.shards.atomic import atomic
from amdim.shards.manifest import UNFINISHED, Shard
from amdim.shards.writer import Rejection, Written


class Journal:
    """The journal of the set in a directory: ``done`` maps the names of finished shards to where their lines begin."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / UNFINISHED
        self.done: dict[str, int] = {}
        self.head: dict[str, Any] = {}
        if self.path.exists():
            try:
                self._read()
            except (ValueError, KeyError, TypeError):  # no journal of ours
                self.head, self.done = {}, {}

    def _read(self) -> None:
        """Finds the whole lines, and cuts off what follows them."""
        with self.path.open("r+b") as file:
            while (line := file.readline()).endswith(b"\n"):
                start = file.tell() - len(line)
                if start == 0:
                    self.head = json.loads(line)
                else:
                    self.done[json.loads(line)["name"]] = start
            file.truncate(file.tell() - len(line))

    def begin(self, head: Mapping[str, Any]) -> None:
        """Starts anew."""
        self.head, self.done = dict(head), {}
        with atomic(self.path) as file:
            file.write(_line(self.head))

    def add(self, written: Written) -> None:
        """Notes a shard, on the disk when this returns."""
        fields = asdict(written) | {"histogram": written.histogram.tolist()}
        with self.path.open("ab") as file:
            self.done[written.name] = file.tell()
            file.write(_line(fields))
            file.flush()
            os.fsync(file.fileno())

    def get(self, name: str) -> Written | None:
        """What was noted of a shard."""
        if name not in self.done:
            return None
        with self.path.open("rb") as file:
            file.seek(self.done[name])
            fields = json.loads(file.readline())
        shard = Shard(**fields.pop("shard")) if fields["shard"] else fields.pop("shard")
        rejections = tuple(Rejection(**each) for each in fields.pop("rejections"))
        histogram = np.array(fields.pop("histogram"), np.int64)
        return Written(shard=shard, rejections=rejections, histogram=histogram, **fields)

    def all(self) -> Iterator[Written]:
        """Every noted shard, in the order of the set: one at a time, as millions may have been rejected."""
        for name in sorted(self.done):
            written = self.get(name)
            if written:
                yield written

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"
