"""How long is a training step, and what does each choice give?  python -m bench.step [--preset NAME]

One step of the same model on the same batch, arrangement by arrangement: float32 in torch's usual layout, channels-last, and
channels-last with bfloat16.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Annotated

import torch
import typer

from bench.machine import describe, seconds, spread
from engine.precision import choose
from engine.presets import PRESETS, Preset
from errors import UsageError, run_app
from model import AMDIM

REPEATS = 9
ARRANGEMENTS = {
    "float32": (torch.contiguous_format, "off"),
    "float32 channels-last": (torch.channels_last, "off"),
    "bfloat16 channels-last": (torch.channels_last, "bf16"),
}


def step(preset: Preset, layout: torch.memory_format, amp: str, device: torch.device) -> Callable[[], None]:
    """A whole training step on random images."""
    torch.manual_seed(0)
    model = AMDIM(preset.encoder, classes=10).to(device).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    side, B = preset.encoder.size, preset.batch
    x1, x2 = (torch.randn(B, 3, side, side, device=device).contiguous(memory_format=layout) for _ in range(2))
    labels, locations = torch.arange(B, device=device) % 10, torch.randint(25, (2, B), device=device)
    precision = choose(amp, device)

    def work() -> None:
        with precision.autocast(device):
            total = model(x1, x2, labels, locations).total
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return work


def main(
    preset: Annotated[str, typer.Option(help="Whose encoder and batch.")] = "fashion-mnist",
    gpus: Annotated[int, typer.Option(help="0 is the CPU.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: there is no such preset; there are {', '.join(PRESETS)}")
    row, device = PRESETS[preset], torch.device("cuda" if gpus else "cpu")
    print(f"{describe()}, {torch.get_num_threads()} threads\npreset {preset}: {row.encoder}, batch {row.batch}")
    for name, (layout, amp) in ARRANGEMENTS.items():
        times = seconds(step(row, layout, amp, device), REPEATS)
        print(f"{name:24}{row.batch / statistics.median(times):8,.0f} images/s   {spread(times)}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.step")
