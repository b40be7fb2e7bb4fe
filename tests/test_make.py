"""The Makefile's own words; what its targets run is tested elsewhere."""

import os
import subprocess
from pathlib import Path

import pytest

from bench import gpu_check

ROOT = Path(__file__).parent.parent
TARGETS = [
    "setup",
    "demo",
    "shards",
    "train",
    "eval",
    "preview",
    "test",
    "test-all",
    "lint",
    "bench",
    "gpu-check",
    "apex",
    "clean",
]


def make(*arguments):
    """As typed in a shell, and not as a part of the `make test` that may be running this."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_make_alone_lists_the_targets_with_a_line_each():
    lines = make().stdout.splitlines()
    assert [line.split()[1] for line in lines if line.split()[1] != "help"] == TARGETS
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_of_a_targets_name_is_no_obstacle(target):
    """Folders such as shards/ must not make make think that the work is done."""
    assert "up to date" not in make("-n", target).stdout


def test_the_three_commands_stand_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for command in ("make shards DATA=", "python train.py", "python eval.py --probe linear", "make demo", "make test"):
        assert command in readme


def test_the_demo_ends_with_the_report():
    last = make("-n", "demo").stdout.strip().splitlines()[-2:]
    assert "eval.py --report" in last[0]
    assert "runs/demo/report.html" in last[1]


def test_gpu_check_needs_nothing_and_says_what_it_skipped():
    result = subprocess.run(
        ["/usr/bin/env", "python3", "-S", "-m", "bench.gpu_check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(gpu_check.CHECKS)
    assert all(line.startswith("skipped") and ": " in line for line in lines)


def test_apex_without_cuda_is_one_line():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA, and apex would be built")
    result = make("apex")
    assert result.returncode != 0
    assert "no CUDA here" in result.stdout
