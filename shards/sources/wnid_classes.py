"""The classes of a set that is labelled by wnid (WordNet's number of a noun, such as n01440764)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from amdim.shards.sources.base import UNLABELLED

WNID = re.compile(r"n\d{8}")


class Classes:
    """Labels are places in the sorted wnids; a class is named by its wnid and, where they are known, its words."""

    def __init__(self, wnids: Iterable[str], words: Mapping[str, str]) -> None:
        self.wnids = tuple(sorted(set(wnids)))
        self.names = tuple(f"{wnid} {words[wnid]}" if wnid in words else wnid for wnid in self.wnids)
        self._number = {wnid: label for label, wnid in enumerate(self.wnids)}

    def label(self, wnid: str | None) -> tuple[int, str]:
        """The label of a wnid and an empty fault, or what is wrong with it."""
        if wnid is None:
            return UNLABELLED, "no row in the labels"
        if wnid not in self._number:
            return UNLABELLED, f"its class {wnid} has no training images"
        return self._number[wnid], ""
