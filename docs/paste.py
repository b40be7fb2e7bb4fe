"""Puts the real output of `make demo` and its pictures into the README: python docs/paste.py demo.log

Replaces what stands between the README's two markers; lines are kept as they were printed, most of the training's left out.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- demo output: made by docs/paste.py -->", "<!-- end of demo output -->"
PICTURES = {
    "data/shapes/preview.png": "shapes.png",
    "runs/demo/pairs.png": "pairs.png",
    "runs/demo/curve.png": "curve.png",
}
MOST = 3  # training lines kept: the first ones and the last


def shorten(lines: list[str]) -> list[str]:
    """All lines but the middle of the training's."""
    steps = [number for number, line in enumerate(lines) if line.startswith("step ")]
    if len(steps) <= MOST:
        return lines
    first, last = steps[MOST - 1], steps[-1]
    return [*lines[: first + 1], "…", *lines[last:]]


def main(log: Path) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith("make")]
    readme = ROOT / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    _, tail = rest.split(END)
    body = "\n".join(shorten(lines))
    readme.write_text(f"{head}{BEGIN}\n```text\n{body}\n```\n{END}{tail}")
    (ROOT / "docs" / "images").mkdir(exist_ok=True)
    for source, name in PICTURES.items():
        shutil.copy(ROOT / source, ROOT / "docs" / "images" / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
