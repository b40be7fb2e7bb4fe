"""How long is a training step, and what does each choice give?  python -m bench.step [--preset NAME] [--compile]

The original's arrangement (float32, torch's usual layout, masked scores, Adam weight by weight, eager) and then one choice after
another, with the same weights on the same batch, in turns: A B C A B C. Beside wall time stands the processor's, which neighbours
disturb less. Operations are those that the original's arrangement needs, counted by torch, whatever an arrangement does; their
rate stands beside that of a plain bfloat16 matrix product in the same turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from amdim.engine.precision import choose
from amdim.engine.presets import PRESETS, Preset
from amdim.errors import UsageError, run_app
from amdim.model import AMDIM, EncoderConfig, conv_matmul
from bench.machine import describe
from bench.original import OriginalLoss, rearrange

SIDES = (2048, 4096)  # of the matrix products
DEFAULT = replace(PRESETS["fashion-mnist"], encoder=EncoderConfig(32, 64, 512, 3), batch=128)
Work = Callable[[], object]


@dataclass(frozen=True)
class Arrangement:
    """A way to compute the same step; the defaults are the original's."""

    channels_last: bool = False
    amp: str = "off"
    streamed: bool = False
    fused_adam: bool = False
    lean_units: bool = False
    products: bool = False
    compiled: bool = False


def ladder(compiled: bool, gpu: bool) -> dict[str, Arrangement]:
    """From the original's arrangement to ours, each with all that the ones before it have."""
    steps = {"original": Arrangement()}
    choices: list[tuple[str, dict[str, Any]]] = [
        ("+ channels-last", {"channels_last": True}),
        ("+ bfloat16", {"amp": "bf16"}),
        ("+ streamed scores", {"streamed": True}),
        ("+ fused Adam", {"fused_adam": True}),
        ("+ 1x1 units unpooled", {"lean_units": True}),
    ]
    choices += [] if gpu else [("+ matrix products", {"products": True})]
    for name, choice in choices:
        steps[name] = replace(list(steps.values())[-1], **choice)
    if compiled:
        last = "+ compiled" if gpu else "compiled, no products"
        steps[last] = replace(list(steps.values())[-1], products=False, compiled=True)
    return steps


def build(preset: Preset, how: Arrangement, device: torch.device) -> tuple[AMDIM, torch.optim.Optimizer]:
    """The model, with the same weights however it is arranged, and its optimizer."""
    torch.manual_seed(0)
    model = (AMDIM if how.streamed else OriginalLoss)(preset.encoder, 10, preset.clip).to(device)
    if how.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not how.lean_units:
        rearrange(model)
    if how.compiled:
        model.encoder.compile()
    form: dict[str, Any] = {"fused": True} if how.fused_adam else {"foreach": False}
    betas = preset.beta1, preset.beta2
    return model, torch.optim.Adam(model.parameters(), lr=preset.lr, betas=betas, weight_decay=preset.weight_decay, **form)


def step(preset: Preset, how: Arrangement, device: torch.device) -> Callable[[], torch.Tensor]:
    """A whole training step on a batch of random images; it gives the loss."""
    model, optimizer = build(preset, how, device)
    side, B = preset.encoder.size, preset.batch
    layout = torch.channels_last if how.channels_last else torch.contiguous_format
    x1, x2 = (torch.randn(B, 3, side, side, device=device).contiguous(memory_format=layout) for _ in range(2))
    labels, locations = torch.arange(B, device=device) % 10, torch.randint(25, (2, B), device=device)
    precision = choose(how.amp, device)

    def work() -> torch.Tensor:
        with mock.patch.object(conv_matmul, "serve", conv_matmul.serve if how.products else lambda _: False):
            with precision.autocast(device):
                total = model(x1, x2, labels, locations).total
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
        return total.detach()

    return work


def product(side: int, device: torch.device) -> Work:
    """A bfloat16 matrix product of two side x side matrices."""
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    return lambda: a @ b


def operations(preset: Preset, device: torch.device) -> float:
    """Multiplications and additions of the products and convolutions of a step in the original's arrangement."""
    with FlopCounterMode(display=False) as counter:
        step(preset, Arrangement(), device)()
    return counter.get_total_flops()


def in_turns(works: dict[str, Work], repeats: int, device: torch.device) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds of each, ``repeats`` times in turns after two calls of each that are not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for turn in range(-2, repeats):
        for name, work in works.items():
            wall, processor = time.perf_counter(), time.process_time()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 0:
                times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return times


def report(times: dict[str, list[tuple[float, float]]], flops: float, batch: int) -> None:
    """A row an arrangement; gains are in wall and in processor time."""
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    rates = {side: 2 * side**3 / medians.pop(str(side))[0] for side in SIDES}
    for side, rate in rates.items():
        print(f"bfloat16 product of {side} x {side} matrices: {rate / 1e9:,.0f} GFLOP/s")
    print(f"{flops / 1e9:,.0f} GFLOP a step")
    print(f"{'':24}{'images/s':>9}{'gain':>8}{'ms':>8}{'min':>8}{'CPU ms':>8}{'gain':>8}{'GFLOP/s':>9}{'of the product':>16}")
    first = medians["original"]
    for name, (wall, processor) in medians.items():
        least = min(row[0] for row in times[name])
        cells = f"{batch / wall:9,.0f}{first[0] / wall:7.2f}x{1e3 * wall:8,.0f}{1e3 * least:8,.0f}{1e3 * processor:8,.0f}"
        cells += f"{first[1] / processor:7.2f}x{flops / wall / 1e9:9,.0f}{flops / wall / max(rates.values()):16.0%}"
        print(f"{name:24}{cells}")


def main(
    preset: Annotated[str | None, typer.Option(help="Whose encoder.", show_default="32 px, w 64, R 512, d 3")] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Images a step.", show_default="128, or the preset's")] = None,
    gpus: Annotated[int, typer.Option(help="0 is the CPU.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Turns.")] = 9,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile as well, which takes minutes.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"--preset {preset}: there is no such preset; there are {', '.join(PRESETS)}")
    row, device = PRESETS[preset] if preset else DEFAULT, torch.device("cuda" if gpus else "cpu")
    row = replace(row, batch=batch or row.batch)
    print(f"{describe()}, {torch.get_num_threads()} threads\n{row.encoder}, batch {row.batch}; medians of {repeats} turns")
    works: dict[str, Work] = {str(side): product(side, device) for side in SIDES}
    works |= {name: step(row, how, device) for name, how in ladder(compiled, bool(gpus)).items()}
    report(in_turns(works, repeats, device), operations(row, device), row.batch)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.step")
