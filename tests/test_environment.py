"""`python train.py` by a Python without the packages."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def bare(*arguments, cwd):
    """Runs with an interpreter that sees the standard library only."""
    return subprocess.run([sys.executable, "-S", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)


def copy(to):
    for name in ("train.py", "amdim/__init__.py", "engine/__init__.py", "engine/bootstrap_venv.py"):
        (to / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, to / name)
    (to / "amdim" / "engine").symlink_to("../engine")
    return to / "train.py"


def test_without_an_environment_it_says_what_to_run(tmp_path):
    result = bare(copy(tmp_path), cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "train.py: torch is not installed; run `make setup` first\n"


def test_with_an_environment_it_runs_there(tmp_path):
    program = copy(tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "in the environment:" "$@"\n')
    python.chmod(0o755)
    result = bare(program, "--presets", cwd=tmp_path)
    assert result.stdout == f"in the environment: {program} --presets\n"


def test_a_bare_python_runs_it_in_this_repositorys_environment(tmp_path):
    """Where this repository's own environment is set up."""
    import pytest

    if not (ROOT / ".venv" / "bin" / "python").exists():
        pytest.skip("no .venv here: the tests run in another environment")
    result = bare(ROOT / "train.py", "--presets", cwd=tmp_path)
    assert "imagenet-small" in result.stdout, result.stderr
