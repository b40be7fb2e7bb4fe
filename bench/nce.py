"""What does streaming the scores cost and save?  python -m bench.nce

One term, forward and backward, float32: the streamed form against the plain formula left to autograd, each in a process of its
own for the peak memory. The plain formula keeps four numbers for each of B x B x L scores.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from bench.machine import describe, seconds
from errors import run_app
from model.nce import CLIP, REGULARISER, nce

REPEATS = 7
SHAPES = ((256, 49, 512), (512, 49, 512), (1024, 49, 512))


def plain(sources: Tensor, targets: Tensor, clip: float = CLIP) -> tuple[Tensor, Tensor]:
    """The definition on whole score tensors."""
    B, L, R = targets.shape
    raw = (sources @ targets.reshape(B * L, R).T).view(B, B, L) / R**0.5
    score = clip * torch.tanh(raw / clip)
    own = torch.eye(B, dtype=torch.bool)
    negatives = score.masked_fill(own[:, :, None], -torch.inf).flatten(1).logsumexp(1)
    return F.softplus(negatives[:, None] - score[own]).mean(), REGULARISER * raw.square().mean()


FORMS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {"streamed": nce, "plain": plain}


def measure(form: str, B: int, L: int, R: int) -> dict[str, float]:
    """Median seconds of a forward and backward, and the megabytes it needs beyond its inputs."""
    torch.manual_seed(0)
    sources, targets = torch.randn(B, R, requires_grad=True), torch.randn(B, L, R, requires_grad=True)
    before = peak()

    def work() -> None:
        loss, regulariser = FORMS[form](sources, targets)
        torch.autograd.grad(loss + regulariser, (sources, targets))

    times = seconds(work, REPEATS)
    return {"seconds": statistics.median(times), "megabytes": peak() - before}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(
    one: Annotated[str | None, typer.Option(hidden=True, help="FORM,B,L,R: measure this alone and print JSON.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    if one:
        form, *numbers = one.split(",")
        print(json.dumps(measure(form, *map(int, numbers))))
        return
    print(f"{describe()}, {torch.get_num_threads()} threads; median of {REPEATS}")
    print(f"{'B':>6}{'L':>4}{'R':>6}" + "".join(f"{form + ' s':>14}{form + ' MB':>14}" for form in FORMS))
    for shape in SHAPES:
        found = [alone(form, shape) for form in FORMS]
        print("{:6}{:4}{:6}".format(*shape) + "".join(f"{f['seconds']:14.3f}{f['megabytes']:14.0f}" for f in found), flush=True)


def alone(form: str, shape: tuple[int, int, int]) -> dict[str, float]:
    """The measurement in a process of its own: peak memory never falls within one."""
    command = [sys.executable, "-m", "bench.nce", "--one", ",".join([form, *map(str, shape)])]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.nce")
