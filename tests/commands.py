"""train.py as a process of its own, and the record that it leaves."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from amdim.engine.checkpoint import CHECKSUMS, FILES
from amdim.engine.tensors import crc
from tests.forked import TIMEOUT, run_forked

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
ROOT = Path(__file__).parent.parent
# Between short runs that differ in rounding alone: mostly 1e-7, up to 1e-4 where a step magnifies it, as other
# threads on one rank do too. Statistics left local to their ranks make it 4e-2. Longer runs bring a control.
ROUNDING = 1e-3
SMALL = (
    "--gpus",
    "0",
    "--preset",
    "demo",
    "--batch-size",
    "16",
    "--amp",
    "off",
    "--lr",
    "2e-4",
)  # the paper's rate; rounding grows with it


def command(data, name, *more):
    return [sys.executable, str(ROOT / "train.py"), *map(str, ("--data", data, *SMALL, "--run", name, *more))]


def train(data, name, *more, cwd, code=0, threads=1):
    if threads == 1:
        result = run_forked("train.py", command(data, name, *more)[2:], cwd)
    else:
        environment = ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
        result = subprocess.run(
            command(data, name, *more), cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=environment
        )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@contextmanager
def little_room(size=10_000):
    """Has longer files fail as on a full disk: the same write, with the same kind of error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_sums(path):
    """Those of a checkpoint's files as they are now."""
    sums = {name: crc(path / name) for name in FILES}
    (path / CHECKSUMS).write_text(json.dumps(sums))


def losses(run):
    names = ("loss", "loss_1t5", "loss_1t7", "loss_5t5", "regulariser", "probes")
    return torch.tensor([[row[name] for name in names] for row in rows(run)], dtype=torch.float64)


def difference(a, b):
    """The largest relative difference of two records' losses."""
    one, other = losses(a), losses(b)
    assert one.shape == other.shape
    return ((one - other).abs() / other.abs()).max().item()
