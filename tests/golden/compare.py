"""Compare the golden numbers with those of a commit, bit by bit on this machine; or record them.

    python -m tests.golden.compare --base COMMIT
    python -m tests.golden.compare --record        # after a change that moves a number, and says so

The base is measured by its own code and its own copy of this package, in a worktree that is removed at the end. Exit code 1 means
that a number differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.measure import ROOT, measured

FILE = Path(__file__).with_name("golden.json")
DIGITS = 9


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return a line for each value that differs: in a bit where processors and packages are equal, else by more than rounding."""
    exact = expected["machine"] == found["machine"]
    old, new = expected["values"], found["values"]
    lines = [f"{name}: {'gone' if name in old else 'new'}" for name in sorted(old.keys() ^ new.keys())]
    for name in sorted(old.keys() & new.keys()):
        a, b = old[name], new[name]
        if len(a["near"]) != len(b["near"]):
            lines.append(f"{name}: {len(b['near'])} numbers, not {len(a['near'])}")
            continue
        apart = max(abs(x - y) / max(1, abs(x)) for x, y in zip(a["near"], b["near"], strict=True))
        if apart > a["within"] or (exact and a["bits"] != b["bits"]):
            lines.append(f"{name}: {a['bits']} is now {b['bits']}, numbers at most {apart:.2g} apart")
    return lines


def measure_base(commit: str, home: Path) -> dict[str, Any]:
    """Measure a commit in a worktree of its own, with this interpreter."""
    tree = home / "tree"
    subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(tree), commit], cwd=ROOT, check=True)
    try:
        command = [sys.executable, "-m", "tests.golden.measure", str(home / "base")]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        found = subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(found.stdout)  # type: ignore[no-any-return]
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def record(found: dict[str, Any]) -> None:
    for value in found["values"].values():
        value["near"] = [float(f"{number:.{DIGITS}g}") for number in value["near"]]
    FILE.write_text(json.dumps(found).replace('}, "', '},\n"') + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--base", help="a commit, to compare with")
    group.add_argument("--record", action="store_true", help="write golden.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        here = measured(home / "here")
        if options.record:
            record(here)
            return 0
        lines = differences(measure_base(options.base, home), here)
    print("\n".join(lines) or f"{len(here['values'])} values are equal, bit by bit")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
