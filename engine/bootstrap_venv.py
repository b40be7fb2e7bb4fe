"""Importing this first makes `python train.py` work outside the environment that `make` sets up.

Where the packages are missing, the same command is run again by `.venv/bin/python`; where that is missing too, one line says what
to do. So this file imports nothing but the standard library, and older Pythons can read it.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("torch", "nvidia.dali", "numpy", "typer", "rich", "safetensors", "tensorboard", "matplotlib", "PIL", "sklearn")


def is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False


def enter() -> None:
    missing = [name for name in PACKAGES if not is_there(name)]
    if not missing:
        return
    python = Path(__file__).resolve().parent.parent / ".venv" / "bin" / "python"
    if not python.exists() or Path(sys.prefix) == python.parent.parent:
        sys.exit("{}: {} is not installed; run `make setup` first".format(Path(sys.argv[0]).name, missing[0]))  # noqa: UP032
    os.execv(python, [str(python), *sys.argv])


enter()
if "--debug" not in sys.argv:  # a lost connection is one line of ours, and not a stack of C++ functions before it
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
