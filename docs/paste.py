"""Puts the real output of `make demo` and its pictures into the README: make demo | tee demo.log; python docs/paste.py demo.log

Replaces what stands between the README's two markers; lines stay as they were printed, set-up and most of the training left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- demo output: made by docs/paste.py -->", "<!-- end of demo output -->"
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


def main(log: Path) -> None:
    lines = [line.rstrip() for line in log.read_text().splitlines()]
    readme = ROOT / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    body = "\n".join(shorten(lines))
    readme.write_text(f"{head}{BEGIN}\n```text\n{body}\n```\n{END}{rest.split(END)[1]}")
    (ROOT / "docs" / "images").mkdir(exist_ok=True)
    for source, name in PICTURES.items():
        shrink(ROOT / source, ROOT / "docs" / "images" / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
