"""Figures on disk: whole or not at all, and let go of."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from amdim.shards.atomic import atomic


def save_figure(figure: Figure, path: Path, dpi: int) -> Path:
    """Writes ``path``, a PNG, and returns it."""
    try:
        with atomic(path) as file:
            figure.savefig(file, dpi=dpi, format="png")
    finally:
        plt.close(figure)
    return path
