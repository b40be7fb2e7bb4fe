"""Whether a disk has room for what is about to be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from amdim.errors import UserError


def check_space(out: Path, expected: int) -> None:
    """Raises UserError when fewer than ``expected`` bytes are free where ``out`` is."""
    free = shutil.disk_usage(out).free
    if expected > free:
        raise UserError(f"{out}: needs about {expected / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; choose another --out")
