"""How does training scale with ranks?  python -m bench.scaling --data data/NAME [--preset NAME] [--ranks 1,2] [--gpus]

Measured: images/s of train.py itself with so many ranks, with as many images a rank and with as many in all; bytes that gloo
moved over the loopback in a step, beside what the sizes of the tensors say. On a CPU every rank gets one thread, so that
ranks, not threads, are compared.

Computed (--computed alone): what 8 and 32 GPUs would do, from operations counted by torch, tensor sizes, this machine's loader
rate and the assumptions that are printed above the table. No GPU has confirmed it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from amdim.engine.presets import PRESETS, Preset
from amdim.errors import UserError, run_app
from amdim.model import AMDIM, Encoder, EncoderConfig
from amdim.model.global_batchnorm import GlobalBatchNorm
from bench.machine import describe

LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")
WINDOWS = 3  # of 20 steps; the first is not counted


class Wire(NamedTuple):
    """Bytes that a rank sends in a step, and the collectives that nothing hides."""

    gradients: float
    objective: float
    statistics: float
    waits: int


def wire(preset: Preset, W: int, images: int, classes: int = 1000, gradient_bytes: int = 4, vector_bytes: int = 2) -> Wire:
    """From the sizes of tensors, for rings: a sum goes round twice, a gather and a reduce-scatter once.

    Args:
        preset: whose model.
        W: ranks.
        images: B, of a rank.
        classes: of the probes.
        gradient_bytes: 4, or 2 with ``--compress bf16``.
        vector_bytes: of the format that the encoder computes in.
    """
    with torch.device("meta"):
        model = AMDIM(preset.encoder, classes, preset.clip, preset.mixture)
    weights = sum(weight.numel() for weight in model.parameters())
    others, N, R = (W - 1) / W, W * images, preset.encoder.embedding
    norms = [norm.num_features for norm in model.encoder.modules() if isinstance(norm, GlobalBatchNorm)] * 2 + [1024]
    vectors, K = 2 + preset.mixture, preset.mixture  # r1 and r5, and mixture features
    sources = 2 * 2 * (vectors * N * R * vector_bytes)  # two views, there and their gradients back
    sums = 2 * 2 * (2 * (3 + K) * N * 4)  # there and back, twice round; those of each direction
    statistics = sum(2 * 4 * channels * (W + 2) for channels in norms)  # a gather of (2, C), a sum of (2, C) twice round
    waits = 2 * len(norms) + 2  # of the gathers of sources, one is hidden each way
    return Wire(2 * others * weights * gradient_bytes, others * (sources + sums), others * statistics, waits)


class Run(NamedTuple):
    """What a run of train.py took: images/s after its first 20 steps, bytes over the loopback, the processor's seconds."""

    rate: float
    moved: int
    processor: float


def measure(data: Path, preset: str, batch: int, ranks: int, on_gpus: bool, steps: int) -> Run:
    here = ["--gpus", str(ranks)] if on_gpus else ["--gpus", "0", "--procs", str(ranks)]
    command = [sys.executable, "train.py", "--data", str(data.resolve()), "--preset", preset, "--batch-size", str(batch), *here]
    environment = os.environ if on_gpus else os.environ | {"OMP_NUM_THREADS": "1"}
    with TemporaryDirectory() as folder:
        moved, processor = int(LOOPBACK.read_text()), processor_seconds()
        more = ["--steps", str(steps), "--run", f"{folder}/run", "--save-every", str(10 * steps), "--quiet"]
        done = subprocess.run([*command, *more], env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"train.py failed: {done.stderr.strip()}")
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    rates = [row["images_per_s"] for row in rows[1:]]
    rate = len(rates) / sum(1 / rate for rate in rates) if rates else 0.0
    return Run(rate, int(LOOPBACK.read_text()) - moved, processor_seconds() - processor)


def processor_seconds() -> float:
    """Of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(data: Path, preset: str, batch: int, counts: list[int], on_gpus: bool) -> None:
    """As many images a rank, then as many in all. Processor time is that of steps alone, and hardly knows of neighbours."""
    print(f"{describe()}\npreset {preset}, {data}; {20 * (WINDOWS - 1)} steps after the first 20")
    print(
        f"{'ranks':>6}{'images a rank':>15}{'batch':>7}{'images/s':>10}{'efficiency':>12}{'a CPU second':>14}{'efficiency':>12}"
    )
    shapes = [(ranks, batch * ranks) for ranks in counts]
    shapes += [(ranks, batch) for ranks in counts if ranks > 1 and batch % ranks == 0]
    first: tuple[float, float] | None = None
    for ranks, N in shapes:
        short, long = (measure(data, preset, N, ranks, on_gpus, steps) for steps in (20, 20 * WINDOWS))
        each = N * 20 * (WINDOWS - 1) / (long.processor - short.processor)
        first = first or (long.rate, each)
        cells = f"{long.rate:10,.0f}{long.rate / ranks / first[0]:12.0%}{each:14,.0f}{each / first[1]:12.0%}"
        print(f"{ranks:6}{N // ranks:15}{N:7}{cells}", flush=True)


def traffic(data: Path, preset: str, batch: int, ranks: int) -> None:
    """What a step moves over gloo, from two runs of which one is longer, beside ``wire``."""
    short, long = (measure(data, preset, batch, ranks, False, steps).moved for steps in (4, 24))
    each = wire(PRESETS[preset], ranks, batch // ranks, classes=10)
    expected = ranks * (each.gradients + each.objective + each.statistics)
    print(f"\n{ranks} gloo ranks, batch {batch}: {(long - short) / 20 / 1e6:.2f} MB a step over the loopback, headers included;")
    print(
        f"by tensor sizes {expected / 1e6:.2f} MB: gradients {ranks * each.gradients / 1e6:.2f}, "
        f"sources and sums {ranks * each.objective / 1e6:.2f}, statistics {ranks * each.statistics / 1e6:.2f}"
    )


class Machine(NamedTuple):
    """A rank's GPU and its links, in units of 1/s: assumptions, not measurements."""

    name: str
    nodes: int
    peak: float  # dense bfloat16 operations
    inside: float  # bytes to the other GPUs of the node, of NVLink's rate one way
    between: float  # bytes to other nodes, of the GPU's own network card: eight cards a node, each with a ring of its own
    cores: int  # a GPU

    def seconds(self, sent: float) -> float:
        """For a GPU to send so many bytes along a ring through all. Of a node's eight hops one leaves it, by another card in each
        of eight rings: a card carries an eighth of what a GPU sends.
        """
        leaves = sent / 8 / self.between if self.nodes > 1 else 0.0
        return max(sent / self.inside, leaves) / LINK_SHARE


A100, H100 = (312e12, 300e9, 25e9, 16), (989e12, 450e9, 50e9, 14)
MACHINES = [Machine(f"{nodes} x 8 {name}", nodes, *chip) for name, chip in (("A100", A100), ("H100", H100)) for nodes in (1, 4)]
UTILISATION, LINK_SHARE = 0.35, 0.7
LATENCY = {False: 25e-6, True: 60e-6}  # of a small collective, within a node and between nodes
IMAGES, EPOCHS, PER_RANK = 1_281_167, 50, 128
GPU_DECODER = 5000.0  # images/s


def operations(preset: Preset, B: int, N: int) -> float:
    """Of a rank in a step: convolutions, and the scores of N x B images."""
    scores = 2 * N * B * (2 * 25 + 49) * 2 * preset.encoder.embedding * 4  # made, made again, and two products of gradients
    return convolutions(preset.encoder) * B + scores


@cache
def convolutions(config: EncoderConfig) -> float:
    """Of two views of an image, forward and backward, counted by torch on tensors without values."""
    with torch.device("meta"):
        encoder = Encoder(config)
        x = torch.empty(2, 3, config.size, config.size)
        with FlopCounterMode(display=False) as counter:
            torch.stack([each.sum() for each in encoder(x)]).sum().backward()
    return counter.get_total_flops()


def predicted(preset: Preset, machine: Machine, loader: float) -> tuple[float, float, str]:
    """Images/s, the share of what as many GPUs would do without talking, and what bounds it.

    Gradients travel while the last two thirds of the computation are done; collectives that it waits for come on top.
    """
    W = 8 * machine.nodes
    sent = wire(preset, W, PER_RANK)
    compute = operations(preset, PER_RANK, W * PER_RANK) / (machine.peak * UTILISATION)
    alone = operations(preset, PER_RANK, PER_RANK) / (machine.peak * UTILISATION)
    gradients = machine.seconds(sent.gradients)
    waits = sent.waits * LATENCY[machine.nodes > 1] + machine.seconds(sent.objective + sent.statistics)
    busy = max(compute, compute / 3 + gradients) + waits
    loading = PER_RANK / max(GPU_DECODER, loader * machine.cores)
    step = max(busy, loading)
    bound = "loading" if loading > busy else "gradients" if gradients > compute * 2 / 3 else "computing"
    return W * PER_RANK / step, alone / step, bound


def loader_rate() -> float:
    """Images/s of two imagenet128 views on one core, of JPEG files like ImageNet's when their shorter side is 256."""
    from bench.photos import two_views_a_second

    return two_views_a_second()


def in_units(values: list[float], unit: float) -> str:
    return " and ".join(f"{value / unit:g}" for value in values)


def computed() -> None:
    loader = loader_rate()
    peaks, inside, between, cores = ([chip[i] for chip in (A100, H100)] for i in range(4))
    print(f"\nCOMPUTED, not measured; {PER_RANK} images a GPU, gradients in float32. Assumed for A100 and H100:")
    print(f"  {in_units(peaks, 1e12)} TFLOP/s in bfloat16, of which {UTILISATION:.0%} are reached")
    print(
        f"  NVLink {in_units(inside, 1e9)} GB/s one way, {in_units(between, 1e9)} GB/s of network a GPU; {LINK_SHARE:.0%} of it"
    )
    print(f"  a small collective {1e6 * LATENCY[False]:.0f} us within a node, {1e6 * LATENCY[True]:.0f} us between nodes")
    print("  gradients travel during the last two thirds of the computation; the sums of a ring leave a node by eight cards")
    print(f"  loading: the A100's own decoder, {GPU_DECODER:,.0f} images/s, also for H100 (NVIDIA, in DALI's issue #5362),")
    print(f"  or {in_units(cores, 1)} cores with {loader:,.0f} each;")
    print(f"  the latter measured on one thread: {describe()}")
    print(f"{'':16}{'':12}{'TFLOP':>8}{'sent':>9}{'images/s':>10}{'efficiency':>12}{'bound by':>11}{f'{EPOCHS} epochs':>12}")
    for name in ("imagenet-small", "imagenet-medium", "imagenet-large"):
        for machine in MACHINES:
            preset, W = PRESETS[name], 8 * machine.nodes
            rate, efficiency, bound = predicted(preset, machine, loader)
            sent, work = sum(wire(preset, W, PER_RANK)[:3]), operations(preset, PER_RANK, W * PER_RANK)
            cells = f"{work / 1e12:8.1f}{sent / 1e6:6,.0f} MB{rate:10,.0f}{efficiency:12.0%}{bound:>11}"
            print(f"{name:16}{machine.name:12}{cells}{IMAGES * EPOCHS / rate / 3600:10.1f} h")


def main(
    data: Annotated[Path, typer.Option(help="A shard set.")] = Path("data/shapes"),
    preset: Annotated[str, typer.Option(help="Whose model.")] = "demo",
    batch: Annotated[int, typer.Option(min=2, help="Images of one rank.")] = 64,
    ranks: Annotated[str, typer.Option(help="Numbers of ranks, from 1.")] = "1,2",
    gpus: Annotated[bool, typer.Option("--gpus", help="Ranks on GPUs.")] = False,
    only: Annotated[bool, typer.Option("--computed", help="Print the computed table alone.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    if not only:
        counts = [int(count) for count in ranks.split(",")]
        measured(data, preset, batch, counts, gpus)
        if not gpus:
            traffic(data, preset, batch, max(counts))
    computed()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.scaling")
