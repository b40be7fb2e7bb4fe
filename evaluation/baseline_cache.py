"""Accuracies of baselines, kept beside a run: random initialisation and raw pixels do not change while it trains on."""

from __future__ import annotations

from pathlib import Path

from amdim.engine.json_file import as_json, read_json
from amdim.shards.atomic import atomic

FILE = "baselines.json"


class BaselineCache:
    """Top-1 by what decides it, in ``run/baselines.json``; what cannot be read there is computed anew."""

    def __init__(self, run: Path) -> None:
        self.path = run / FILE
        self.found: dict[str, float] = read_json(self.path)

    def put(self, found: dict[str, float]) -> None:
        """Adds to what is there, by another evaluation too that ran meanwhile."""
        if found.items() <= self.found.items():
            return
        self.found |= read_json(self.path) | found
        with atomic(self.path) as file:
            file.write(as_json(self.found))
