"""The training curve of a run as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt

from amdim.engine import runs
from amdim.engine.monitor.metrics_logger import read_rows
from amdim.errors import UsageError
from amdim.evaluation.figures import save_figure
from amdim.evaluation.run_record import ONLINE, terms


def draw_curve(run: Path) -> Path:
    """Draws losses by term and online probes against steps into ``run/curve.png``.

    Raises:
        UsageError: the run has logged nothing.
    """
    rows = read_rows(run)
    if not rows:
        raise UsageError(f"{run}: has no metrics.jsonl to draw; name a run with --run")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    steps = [row["step"] for row in rows]
    for name, label in terms(rows, runs.read_config(run)).items():
        left.plot(steps, [row[name] for row in rows], label=label, marker="." if len(rows) < 5 else None)
    left.set(title="NCE losses: how hard views are to match", xlabel="step", ylabel="nats (lower is better)")
    for name, label in ONLINE.items():
        seen = [(row["step"], 100 * row[name]) for row in rows if row[name] is not None]  # None: no image had a label
        if seen:
            right.plot(*zip(*seen, strict=True), label=label, marker="." if len(seen) < 5 else None)
    right.set(title="Online probes on augmented training views", xlabel="step", ylabel="top-1, %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    return save_figure(figure, run / "curve.png", dpi=110)
