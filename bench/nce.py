"""What does streaming the scores cost and save?  python -m bench.nce [--quick]

One term, forward and backward, in three forms: streamed, the plain formula left to autograd, and amdim-public's with masks.
Each runs in a process of its own for the peak memory beyond its inputs, which includes the targets' own gradient. Then all six
terms of the objective, sharing products, against six separate ones; and the bytes that eight ranks move.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from amdim.errors import run_app
from amdim.model.encoder import Features
from amdim.model.multiscale_nce import CLIP, REGULARISER, locations_of, multiscale_nce, nce, sources_of
from bench.machine import describe, seconds
from bench.masked import masked_nce

REPEATS = 5
L = 49
SHAPES = tuple((B, R) for B in (256, 512, 1024, 2048) for R in (512, 1024))
QUICK = ((256, 512), (1024, 512))
Term = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def plain_nce(sources: Tensor, targets: Tensor, clip: float = CLIP) -> tuple[Tensor, Tensor]:
    """The definition on whole score tensors."""
    B, L, R = targets.shape
    wide = torch.promote_types(targets.dtype, torch.float32)
    raw = (sources @ targets.reshape(B * L, R).T).to(wide).view(B, B, L) / R**0.5
    score = clip * torch.tanh(raw / clip)
    own = torch.eye(B, dtype=torch.bool)
    negatives = score.masked_fill(own[:, :, None], -torch.inf).flatten(1).logsumexp(1)
    return F.softplus(negatives[:, None] - score[own]).mean(), REGULARISER * raw.square().mean()


FORMS: dict[str, Term] = {"streamed": nce, "plain": plain_nce, "masked": masked_nce}


def measure(form: str, B: int, R: int, dtype: str) -> dict[str, float]:
    """Median seconds of a forward and backward, and the megabytes it needs beyond its inputs."""
    torch.manual_seed(0)
    sources, targets = (torch.randn(shape).to(getattr(torch, dtype)).requires_grad_() for shape in ((B, R), (B, L, R)))
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten

    def work() -> None:
        loss, regulariser = FORMS[form](sources, targets)
        torch.autograd.grad(loss + regulariser, (sources, targets))

    return {"seconds": statistics.median(seconds(work, REPEATS)), "megabytes": memory("VmHWM") - before}


def memory(field: str) -> float:
    """Megabytes of this process: now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def alone(form: str, shape: tuple[int, int], dtype: str) -> dict[str, float]:
    """The measurement in a process of its own: peak memory never falls within one."""
    command = [sys.executable, "-m", "bench.nce", "--one", ",".join([form, *map(str, shape), dtype])]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def one_term(shapes: tuple[tuple[int, int], ...], dtype: str) -> None:
    print(f"\none term, L {L}, {dtype}: seconds and MB; how many times as long and as much the others take")
    print(f"{'B':>6}{'R':>6}" + "".join(f"{form:>16}" for form in FORMS) + f"{'plain':>18}{'masked':>16}")
    for shape in shapes:
        found = [alone(form, shape, dtype) for form in FORMS]
        ours = found[0]
        cells = "".join(f"{f['seconds']:9.3f}{f['megabytes']:7.0f}" for f in found)
        ratios = "".join(f"{f['seconds'] / ours['seconds']:9.2f}x{f['megabytes'] / ours['megabytes']:5.1f}x" for f in found[1:])
        print(f"{shape[0]:6}{shape[1]:6}{cells}  {ratios}", flush=True)


def six_terms(B: int, R: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(B, R, s, s).to(dtype, memory_format=torch.channels_last).requires_grad_() for s in (1, 5, 7, 1, 5, 7)]
    views, locations = (Features(*maps[:3]), Features(*maps[3:])), torch.randint(25, (2, B))

    def together() -> None:
        torch.autograd.grad(multiscale_nce(*views, locations).total, maps)

    def apart() -> None:
        torch.autograd.grad(separate(*views, locations), maps)

    pairs = [(seconds(together, 1, 1)[0], seconds(apart, 1, 1)[0]) for _ in range(REPEATS)]
    shared, single = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"six terms, B {B}, R {R}, {dtype}: {shared:.3f} s sharing products, {single:.3f} s apart ({single / shared:.2f}x)")


def separate(view1: Features, view2: Features, locations: Tensor) -> Tensor:
    """The objective from six calls of ``nce``."""
    total = torch.zeros(())
    for source, target, location in ((view1, view2, locations[0]), (view2, view1, locations[1])):
        r1, r5 = sources_of(source, location).unbind(1)
        pairs = ((r1, target.r5), (r1, target.r7), (r5, target.r5))
        total = total + sum(torch.stack(nce(s, locations_of(t))).sum() for s, t in pairs) / 2
    return total


def wire(W: int = 8, N: int = 1024, R: int = 2560) -> None:
    """Bytes a rank receives for the objective's vectors in a step, forward and backward, in a 16-bit format."""
    away, both_ways, size = N - N // W, 2, 2
    targets, others = 2 * (25 + 49), {"sources": 2 * 2} | {f"sources with K = {K} for r7": 2 * (2 + K) for K in (2, 4, 8)}
    whole = away * both_ways * targets * R * size
    print(f"\n{W} ranks, global batch {N}, R {R}, 16 bit: a rank gathers vectors and scatters their gradients")
    print(f"  targets, as in most implementations: {whole / 1e6:8.1f} MB a step")
    for name, vectors in others.items():
        sums = both_ways * 4 * N * (vectors + 2)  # float32, all-reduced; r1 has one on each map
        moved = away * both_ways * vectors * R * size + sums
        print(f"  {name + ' and sums:':36} {moved / 1e6:8.1f} MB a step, {whole / moved:.1f}x fewer")


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Two shapes.")] = False,
    one: Annotated[str | None, typer.Option(hidden=True, help="FORM,B,R,DTYPE: measure this alone and print JSON.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    if one:
        form, images, width, kind = one.split(",")
        print(json.dumps(measure(form, int(images), int(width), kind)))
        return
    print(f"{describe()}, {torch.get_num_threads()} threads; medians of {REPEATS}")
    for dtype in ("float32", "bfloat16"):
        one_term(QUICK if quick else SHAPES, dtype)
    print()
    for B in (128, 512):
        six_terms(B, 512, torch.bfloat16)
    wire()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.nce")
