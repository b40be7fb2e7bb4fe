"""A run's record: ``metrics.jsonl``, one object a log step, and TensorBoard events beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

FILE = "metrics.jsonl"
PROMISED = {"step", "loss", "loss_1t5", "loss_1t7", "loss_5t5", "linear_top1", "mlp_top1"}


class Logs:
    """Appends to the record in ``directory``; on resuming, what was logged after the checkpoint is dropped first."""

    def __init__(self, directory: Path, resumed_at: int) -> None:
        path = directory / FILE
        rows = [row for row in read_rows(directory) if row["step"] <= resumed_at]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.file = path.open("a", buffering=1)
        self.board = SummaryWriter(str(directory), purge_step=resumed_at + 1 if resumed_at else None)

    def write(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if isinstance(value, float):
                self.board.add_scalar(name, value, row["step"])

    def write_pairs(self, step: int, picture: Tensor) -> None:
        """A picture (3, height, width) in [0, 1]."""
        self.board.add_image("pairs of views", picture, step)

    def close(self) -> None:
        self.file.close()
        self.board.close()


def read_rows(directory: Path) -> list[dict[str, Any]]:
    """The rows of a run's record; a line that is no whole row, as a power cut may leave, is passed over."""
    path = directory / FILE
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [row for row in map(parse, lines) if row.keys() >= PROMISED]


def parse(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
