"""Puts into the README what commands print: the demo's output and pictures, and the ladder of presets.

    make demo | tee demo.log; python -m docs.paste_output demo.log

Replaces what stands between markers; lines of the demo stay as they were printed, set-up and most of the training left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from amdim.engine.monitor import preset_table

ROOT = Path(__file__).parent.parent
DEMO = ("<!-- demo output: made by docs/paste_output.py -->", "<!-- end of demo output -->")
PRESETS = ("<!-- presets: made by docs/paste_output.py -->", "<!-- end of presets -->")
FIRST = "-m shards build"  # what stands above it is set-up
STEPS = 3  # training lines kept before the last
PICTURES = {"data/shapes/preview.png": "shapes.jpg", "runs/demo/pairs.png": "pairs.jpg", "runs/demo/curve.png": "curve.jpg"}
WIDTH = 900


def shorten(lines: list[str]) -> list[str]:
    """The demo's own lines, but for the middle of the training."""
    start = next(number for number, line in enumerate(lines) if FIRST in line)
    lines = lines[start:]
    steps = [number for number, line in enumerate(lines) if line.startswith("step ")]
    return [*lines[: steps[STEPS - 1] + 1], "…", *lines[steps[-1] :]] if len(steps) > STEPS else lines


def shrink(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        image.thumbnail((WIDTH, WIDTH))
        image.convert("RGB").save(target, quality=88)


def table() -> str:
    """The ladder, as Markdown."""
    rows = [preset_table.HEADINGS, ("---",) * len(preset_table.HEADINGS), *preset_table.rows()]
    return (
        "\n".join(f"| {' | '.join(row)} |" for row in rows)
        + f"\n\n{preset_table.RULE} {preset_table.MEMORY} {preset_table.SPEED}"
    )


def paste(markers: tuple[str, str], body: str) -> None:
    begin, end = markers
    readme = ROOT / "README.md"
    head, rest = readme.read_text().split(begin)
    readme.write_text(f"{head}{begin}\n{body}\n{end}{rest.split(end)[1]}")


def main(log: Path) -> None:
    lines = [line.rstrip() for line in log.read_text().splitlines()]
    paste(DEMO, "\n".join(["```text", *shorten(lines), "```"]))
    paste(PRESETS, table())
    (ROOT / "docs" / "images").mkdir(exist_ok=True)
    for source, name in PICTURES.items():
        shrink(ROOT / source, ROOT / "docs" / "images" / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
