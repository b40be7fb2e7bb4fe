"""oneDNN's convolutions against the same as matrix products, on the CPU.  OMP_NUM_THREADS=1 python -m bench.convolutions

Shapes of the encoder at 32 px, w 64, R 512; bfloat16, channels-last. Beside the products stands what laying windows out as rows
costs, which 1x1 does not need.
"""

from __future__ import annotations

import statistics
from typing import Annotated

import torch
import typer

from amdim.errors import run_app
from amdim.model.conv_matmul import convolution_backward, matrix, rows, windows
from bench.machine import describe, seconds

REPEATS = 15
# kernel, stride, channels in, channels out, side of the input
SHAPES = (
    (1, 1, 64, 64, 30),
    (1, 1, 512, 512, 7),
    (1, 1, 512, 512, 1),
    (2, 2, 128, 256, 14),
    (3, 1, 256, 256, 7),
    (3, 1, 256, 256, 5),
    (3, 1, 256, 512, 3),
    (4, 2, 64, 128, 30),
)


def compare(k: int, s: int, inp: int, out: int, side: int, batch: int) -> list[float]:
    """Median milliseconds: forward, input's gradient, weights' gradient, each by convolution and by product; then the layout."""
    layout = torch.channels_last
    x = torch.randn(batch, inp, side, side).bfloat16().contiguous(memory_format=layout)
    w = torch.randn(out, inp, k, k).bfloat16().contiguous(memory_format=layout)
    y = torch.conv2d(x, w, stride=s)
    flat, of_rows, d_y = windows(x, k, s), matrix(w), rows(y)
    work = (
        lambda: torch.conv2d(x, w, stride=s),
        lambda: flat @ of_rows.T,
        lambda: convolution_backward(y, x, w, s, [True, False, False]),
        lambda: d_y @ of_rows,
        lambda: convolution_backward(y, x, w, s, [False, True, False]),
        lambda: d_y.T @ flat,
        lambda: windows(x, k, s),
    )
    return [1e3 * statistics.median(seconds(each, REPEATS)) for each in work]


def main(
    batch: Annotated[int, typer.Option(min=1, help="Images.")] = 128,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    print(f"{describe()}, {torch.get_num_threads()} threads; batch {batch}, medians of {REPEATS}, ms: convolution / product")
    print(f"{'':32}{'forward':>14}{'d input':>14}{'d weights':>14}{'layout':>9}")
    for k, s, inp, out, side in SHAPES:
        found = compare(k, s, inp, out, side, batch)
        pairs = "".join(f"{a:7.1f} /{b:5.1f}" for a, b in zip(found[:-1:2], found[1:-1:2], strict=True))
        print(f"{f'{k}x{k} stride {s}, {inp} to {out} at {side}x{side}':32}{pairs}{found[-1]:9.1f}", flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.convolutions")
