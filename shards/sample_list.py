"""Millions of samples in a few arrays: about 30 bytes and the name for each, where an object would take three hundred."""

from __future__ import annotations

import hashlib
from array import array

from amdim.shards.sources.base import UNLABELLED, Sample


class Listing:
    """A growing sequence of samples, all with the same number of ``place`` numbers."""

    def __init__(self, width: int = 0) -> None:
        self.width = width
        self._names = bytearray()
        self._ends = array("q")
        self._labels = array("i")
        self._places = array("q")
        self._faults: dict[int, str] = {}

    def add(self, path: str, label: int = UNLABELLED, place: tuple[int, ...] = (), fault: str = "") -> None:
        if len(place) != self.width:
            raise ValueError(f"{len(place)} numbers say where a sample lies, and {self.width} do in this listing")
        if fault:
            self._faults[len(self)] = fault
        self._names += path.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._names))
        self._labels.append(label)
        self._places.extend(place)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        path = self._names[start : self._ends[index]].decode("utf-8", "surrogateescape")
        place = tuple(self._places[index * self.width : (index + 1) * self.width])
        return Sample(path, self._labels[index], place, self._faults.get(index, ""))

    @property
    def faulty(self) -> int:
        """How many of the samples have a fault."""
        return len(self._faults)

    def labels(self) -> array[int]:
        """The label of every sample."""
        return self._labels

    def fingerprint(self) -> str:
        """The same for equal listings only: names, labels, places and faults, in their order."""
        digest = hashlib.sha256(repr((self.width, sorted(self._faults.items()))).encode())
        for part in (self._names, self._ends, self._labels, self._places):
            digest.update(part)
        return digest.hexdigest()[:16]
