"""A run's record: ``metrics.jsonl``, one object a log step, and TensorBoard events beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class Logs:
    """Appends to the record in ``directory``; on resuming, what was logged after the checkpoint is dropped first."""

    def __init__(self, directory: Path, resumed_at: int) -> None:
        path = directory / "metrics.jsonl"
        rows = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(row for row in rows if known_before(row, resumed_at)))
        self.file = path.open("a", buffering=1)
        self.board = SummaryWriter(str(directory), purge_step=resumed_at + 1 if resumed_at else None)

    def write(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if isinstance(value, float):
                self.board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self.file.close()
        self.board.close()


def known_before(row: str, step: int) -> bool:
    """Whether a line is whole and at most at ``step``: a killed process may leave half a line."""
    try:
        return bool(json.loads(row)["step"] <= step)
    except (ValueError, KeyError):
        return False
