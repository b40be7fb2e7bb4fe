"""Accuracies of baselines, kept beside a run: random initialisation and raw pixels do not change while it trains on."""

from __future__ import annotations

import json
from pathlib import Path

from shards.atomic import atomic

FILE = "baselines.json"


class Kept:
    """Top-1 by what decides it, in ``run/baselines.json``; what cannot be read there is computed anew."""

    def __init__(self, run: Path) -> None:
        self.path = run / FILE
        self.found = self.read()

    def read(self) -> dict[str, float]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def put(self, found: dict[str, float]) -> None:
        """Adds to what is there, by another evaluation too that ran meanwhile."""
        if found.items() <= self.found.items():
            return
        self.found |= self.read() | found
        with atomic(self.path) as file:
            file.write((json.dumps(self.found, indent=2) + "\n").encode())
