"""Do the commands work on this GPU, from images to a probe? Part of `make gpu-check`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.gpu_skip import Skip, need, need_gpu

ROOT = Path(__file__).parent.parent
STEPS, WARM = 120, 40  # WARM: the logged step at which one of the runs is stopped
APART = 0.05  # of a run that was stopped and one that was not: a GPU's sums have no fixed order
ABOVE = 0.03  # random initialisation, in top-1


def commands() -> str:
    """train.py learns on the GPU, also when it is stopped and goes on, and eval.py probes what came of it."""
    need("nvidia.dali", "typer", "PIL", "tensorboard")
    need_gpu()
    with TemporaryDirectory() as folder:
        return rehearse(Path(folder), "1")


def ranks() -> str:
    """The same on several GPUs, over NCCL: as many as the batch can be shared among."""
    need("nvidia.dali", "typer", "PIL", "tensorboard")
    need_gpu()
    import torch

    if (found := torch.cuda.device_count()) < 2:
        raise Skip("there is one GPU")
    count = 2 ** (min(found, 8).bit_length() - 1)
    with TemporaryDirectory() as folder:
        return f"{count} GPUs: {rehearse(Path(folder), str(count))}"


def rehearse(folder: Path, gpus: str, *more: str) -> str:
    """Shards, two runs of ``train.py`` with ``more`` options, of which one is stopped by SIGTERM, and a linear probe."""
    call(folder, "-m", "shards", "build", "shapes", "--out", "shapes")
    options = ("--data", "shapes", "--preset", "demo", "--steps", str(STEPS), "--gpus", gpus, *more)
    call(folder, "train.py", *options, "--run", "whole")
    stop(folder, "train.py", *options, "--run", "stopped")
    reached = max(losses(folder / "runs/stopped"))
    assert WARM <= reached < STEPS, f"it was to stop after step {WARM}, and did after {reached}"
    call(folder, "train.py", *options, "--run", "stopped")
    whole, stopped = (losses(folder / "runs" / name) for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys(), f"on record are {list(whole)} and {list(stopped)}"
    first, *_, last = whole.values()
    assert last < first, f"the loss went from {first:.2f} to {last:.2f}"
    worst = max(abs(stopped[step] / whole[step] - 1) for step in whole)
    assert worst < APART, f"the run that was stopped differs by {worst:.1%}"
    call(folder, "eval.py", "--probe", "linear", "--run", "whole", "--gpus", gpus)
    linear = json.loads((folder / "runs/whole/eval-linear.json").read_text())
    top1, untrained = linear["top1"], linear["top1_random_init"]
    assert top1 > untrained + ABOVE, f"linear probe {top1:.1%}, at random initialisation {untrained:.1%}"
    return (
        f"loss {first:.2f} to {last:.2f} in {STEPS} steps; stopped after step {WARM} and gone on, it differs by at most "
        f"{worst:.1e}; linear probe {top1:.1%}, at random initialisation {untrained:.1%}"
    )


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    script = arguments if arguments[0] == "-m" else (str(ROOT / arguments[0]), *arguments[1:])
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, *script], cwd=folder, env=environment, text=True, **pipes)  # type: ignore[call-overload]


def call(folder: Path, *arguments: str) -> None:
    process = start(folder, *arguments)
    printed, _ = process.communicate()
    assert not process.returncode, f"{' '.join(arguments)} ended with {process.returncode}:\n{printed}"


def stop(folder: Path, *arguments: str) -> None:
    """Runs ``train.py`` until it has logged ``WARM`` steps; it is to end as after any SIGTERM."""
    process = start(folder, *arguments)
    assert process.stdout
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith(f"step {WARM}/"):
            process.send_signal(signal.SIGTERM)
    code = process.wait()
    assert code == 128 + signal.SIGTERM, f"{' '.join(arguments)} ended with {code} after SIGTERM:\n{printed}"


def losses(run: Path) -> dict[int, float]:
    """By step, the mean loss of those since the one logged before."""
    rows = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows}
