"""Options of the evaluation command that ask for something other than a probe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine import runs
from errors import UsageError

Compared = Annotated[list[str] | None, typer.Argument(help="Runs to compare, with --compare.", show_default=False)]
Compare = Annotated[bool, typer.Option("--compare", help="Print a table of the runs that follow, and draw compare.png.")]
Export = Annotated[
    Path | None, typer.Option("--export", help="Write the encoder: FILE.safetensors, FILE.onnx or FILE.pt2, and its card.")
]
FeaturesOut = Annotated[
    Path | None, typer.Option("--features", help="Write r1, labels and keys of all images of --data: FILE.npz.")
]

Report = Annotated[bool, typer.Option("--report", help="Write report.html into the run: all there is to see of it, in one page.")]


def runs_to_compare(compare: bool, names: list[str] | None) -> list[Path]:
    """Their directories.

    Raises:
        UsageError: runs were named without being asked for.
    """
    names = names or []
    if not compare:
        raise UsageError(f"{names[0]}: an argument without its option; give --run {names[0]}, or --compare before runs")
    return [runs.run_path(name.rstrip("/"), "--compare") for name in names]
