"""Does it work on this GPU?  make gpu-check [PYTHON=python3]

Needs no set-up and no network: runs what can be imported, and lists what was skipped and why. Exit code 1 if a check failed.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))


class Skip(Exception):
    """A check cannot run here; its text says why."""


def need(*modules: str) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise Skip(f"cannot import {name} ({error})") from error


def need_gpu() -> None:
    need("torch")
    import torch

    if not torch.cuda.is_available():
        raise Skip("torch sees no CUDA device")


def device() -> str:
    """torch and its GPU."""
    need_gpu()
    import torch

    major, minor = torch.cuda.get_device_capability()
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name()}, sm_{major}{minor}, {memory:.0f} GiB, torch {torch.__version__}"


def objective() -> str:
    """Objective on the GPU equals the CPU's, gradients too."""
    need_gpu()
    import torch

    from model.nce import nce

    torch.manual_seed(0)
    sources, targets = torch.randn(64, 128, dtype=torch.float64), torch.randn(64, 49, 128, dtype=torch.float64)
    results = []
    for where in ("cpu", "cuda"):
        s, t = (x.to(where).requires_grad_() for x in (sources, targets))
        value = torch.stack(nce(s, t)).sum()
        results.append([x.cpu() for x in (value, *torch.autograd.grad(value, (s, t)))])
    worst = max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(*results, strict=True))
    assert worst < 1e-10, f"relative difference {worst:.1e}"
    return f"relative difference {worst:.1e} in float64"


def encoder() -> str:
    """Encoder on the GPU equals the CPU's in float32."""
    need_gpu()
    import torch

    from model.encoder import Encoder, EncoderConfig

    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    network: Any = Encoder(EncoderConfig(64, 16, 128, 2))
    x = torch.randn(8, 3, 64, 64)
    expected = network(x)
    network = network.to("cuda").to(memory_format=torch.channels_last)
    found = network(x.to("cuda", memory_format=torch.channels_last))
    worst = max((a.cpu() - b).abs().max().item() for a, b in zip(found, expected, strict=True))
    assert worst < 1e-3, f"features differ by {worst:.1e}"
    return f"features differ by at most {worst:.1e}"


def training() -> str:
    """A training step with AMP, channels-last and fused Adam lowers the loss."""
    need_gpu()
    import torch

    from model import AMDIM, EncoderConfig

    torch.manual_seed(0)
    model: Any = AMDIM(EncoderConfig(128, 192, 1536, 8), classes=10)
    model = model.to("cuda").to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    batch = 120
    x1, x2 = (torch.randn(batch, 3, 128, 128, device="cuda").to(memory_format=torch.channels_last) for _ in range(2))
    labels, locations = torch.arange(batch, device="cuda") % 10, torch.randint(25, (2, batch), device="cuda")
    losses, start = [], 0.0
    for step in range(13):
        if step == 3:
            torch.cuda.synchronize()
            start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(x1, x2, labels, locations)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        optimizer.step()
        losses.append(loss.objective.total.detach())
    torch.cuda.synchronize()
    rate = 10 * batch / (time.perf_counter() - start)
    first, last = losses[0].item(), losses[-1].item()
    assert last < first, f"the loss went from {first:.2f} to {last:.2f}"
    memory = torch.cuda.max_memory_allocated() / 2**30
    return f"loss {first:.2f} to {last:.2f}; {rate:.0f} images/s, batch {batch}, w 192, bf16, eager; {memory:.1f} GiB"


def views() -> str:
    """The GPU's DALI graph gives the CPU's views, in half precision and without a copy."""
    need("nvidia.dali", "typer", "PIL")
    need_gpu()
    import torch

    from pipeline import RECIPES, TwoViewLoader

    with TemporaryDirectory() as folder:
        root = shapes(Path(folder))
        devices = (torch.device("cpu"), torch.device("cuda:0"))
        cpu, gpu = (next(iter(TwoViewLoader(root, ["train"], RECIPES["shapes64"], 64, device=d))) for d in devices)
    assert gpu.x1.dtype == torch.float16
    assert gpu.x1.is_cuda
    assert gpu.x1.is_contiguous(memory_format=torch.channels_last)
    difference = (gpu.x1.float().cpu() - cpu.x1).abs().mean().item()
    assert difference < 0.05, f"views differ by {difference:.3f} on average"
    return f"views differ by {difference:.4f} of a standard deviation on average"


def loading() -> str:
    """Two views an image, decoded and made on the GPU."""
    need("nvidia.dali", "typer", "PIL")
    need_gpu()
    import torch

    from pipeline import RECIPES, TwoViewLoader

    with TemporaryDirectory() as folder:
        loader = TwoViewLoader(shapes(Path(folder)), ["train"], RECIPES["shapes64"], 256, device="cuda:0")
        next(iter(loader))
        torch.cuda.synchronize()
        start, images = time.perf_counter(), 0
        for _ in range(10):
            for batch in loader:
                images += len(batch.x1)
        torch.cuda.synchronize()
        rate = images / (time.perf_counter() - start)
    return f"{rate:,.0f} images/s of 64 x 64 PNG"


def shapes(folder: Path) -> Path:
    """A small set of generated images."""
    from shards.build import build
    from shards.shapes import source

    counts = {"train": 1024, "val": 64}
    build(source(0, counts), folder / "shapes", seed=0, workers=1, max_rejected=0, overwrite=False, show=lambda _: None)
    return folder / "shapes"


CHECKS: tuple[Callable[[], str], ...] = (device, objective, encoder, training, views, loading)


def main() -> int:
    failed = 0
    for check in CHECKS:
        title = (check.__doc__ or check.__name__).strip().rstrip(".")
        try:
            print(f"passed   {title}: {check()}")
        except Skip as reason:
            print(f"skipped  {title}: {reason}")
        except Exception:
            failed += 1
            print(f"FAILED   {title}:\n{traceback.format_exc()}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
