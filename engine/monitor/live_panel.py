"""The live view of a run in a terminal: one log row as a panel."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

TERMS = {"1→5": "loss_1t5", "1→7": "loss_1t7", "5→5": "loss_5t5", "mixture": "loss_mixture", "regulariser": "regulariser"}


def panel(row: dict[str, Any], step: int, steps: int, remaining: float) -> RenderableType:
    """The last log row, after ``step`` of ``steps`` steps, ``remaining`` seconds before the end."""
    head = Table.grid(padding=(0, 2), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(no_wrap=True, justify="right")
    left = timedelta(seconds=round(remaining))
    head.add_row(
        f"step {step:,}/{steps:,}, epoch {row['epoch'] / row['step'] * step:.2f}",
        ProgressBar(steps, step),
        f"{step / steps:.1%}, {left} left",
    )
    body = Table.grid(padding=(0, 2))
    body.add_column(style="bold", no_wrap=True)
    body.add_column()
    for name, value in cells(row).items():
        body.add_row(name, value)
    return Panel(Group(head, body), title="AMDIM", title_align="left")


def cells(row: dict[str, Any]) -> dict[str, str]:
    """What the panel says below its bar; without labels there is no accuracy."""
    terms = [f"{name} {row[key]:.3f}" for name, key in TERMS.items() if row.get(key)]
    # Beside a mixture's term, r1 to r7 may only be measured: then the terms are more than the loss.
    loss = f"of {', '.join(terms)}" if row.get("loss_mixture") else f"= {' + '.join(terms)}"
    found = {"loss": f"{row['loss']:.3f} {loss}"}
    if row["linear_top1"] is not None:
        found["online probes"] = f"linear {row['linear_top1']:.1%}, MLP {row['mlp_top1']:.1%}"
    return (
        found
        | {"speed": speed(row), "a step": times(row)}
        | {
            "learning rate": f"{row['lr']:.2e}, gradient's norm {row['grad_norm']:.3g}",
            "memory": f"{row['memory_gib']:.2f} GiB",
            "checkpoint": checkpoint(row),
        }
    )


def speed(row: dict[str, Any]) -> str:
    share = "" if row["mfu"] is None else f", {row['mfu']:.0%} of the peak"
    each = f"{row['images_per_s']:,.0f} images/s, {row['images_per_s_a_rank']:,.0f} a rank"
    return f"{each}, {row['gflop_per_s']:,.0f} GFLOP/s{share}"


def times(row: dict[str, Any]) -> str:
    """Data against computing: who waits for whom."""
    data, compute = row["data_s"], row["compute_s"]
    return f"data {data:.3f} s, compute {compute:.3f} s: {data / (data + compute):.0%} of it for data"


def checkpoint(row: dict[str, Any]) -> str:
    if row["checkpoint_step"] is None:
        return "none yet"
    return f"step {row['checkpoint_step']:,}, {row['checkpoint_mb']:,.1f} MB, written in {row['checkpoint_write_s']:.1f} s"
