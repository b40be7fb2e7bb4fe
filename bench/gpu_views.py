"""Do views work on this GPU? Part of `make gpu-check`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from bench.gpu_skip import Skip, need, need_gpu

GPU = "cuda:0"
BATCH = 64
READ = 30  # batches
ROUNDED = 2.0**-8  # of fused colours, whose sums have another order: a place of half precision
BOUND = 0.05  # of a standard deviation, on average: about three levels
GROWTH = 64 * 2**20  # bytes that memory may vary by, some allocations being kept until they are needed


def views() -> str:
    """Views of the GPU are the CPU's in half precision, of each recipe, from PNG and from JPEG, whoever ends them there."""
    need_all()
    from amdim.pipeline import RECIPES, dali

    found: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        sets = {"PNG": shapes(Path(folder)), "JPEG": photographs(Path(folder))}
        for who, serves in (("Triton", dali.is_available), ("graph", lambda _: False)):
            with mock.patch.object(dali, "is_available", serves):
                for kind, root in sets.items():
                    found |= {f"{who} {name} {kind}": difference(root, recipe, ("cpu", GPU)) for name, recipe in RECIPES.items()}
    wrong = {name: f"{each:.3f}" for name, each in found.items() if each > BOUND}
    assert not wrong, f"views differ by more than {BOUND} of a standard deviation on average: {wrong}"
    worst = max(found, key=lambda name: found[name])
    return (
        f"they differ by {statistics.mean(found.values()):.4f} of a standard deviation on average, {worst} by {found[worst]:.4f}"
    )


def difference(root: Path, recipe: Any, devices: tuple[str, str]) -> float:
    """Between the views that DALI makes on two devices, the same images drawn alike: the mean, in standard deviations."""
    first, second = (next(batches(root, recipe, device)) for device in devices)
    for device, made in zip(devices, (first, second), strict=True):
        check_form(made.x1, device)
        check_form(made.x2, device)
    pairs = zip(first[:2], second[:2], strict=True)
    return statistics.mean((a.float().cpu() - b.float().cpu()).abs().mean().item() for a, b in pairs)


def check_form(x: Any, device: str) -> None:
    import torch

    assert x.device == torch.device(device), x.device
    assert x.dtype == (torch.float16 if x.is_cuda else torch.float32), x.dtype
    assert x.is_contiguous(memory_format=torch.channels_last), x.stride()


def painting() -> str:
    """What Triton makes of resampled levels is what the CPU's loops make of them, bit for bit where colours are exact."""
    need_all()
    import torch

    from amdim.pipeline import RECIPES
    from amdim.pipeline.augment.gpu import augment_on_gpu, is_available, tables

    if not is_available(torch.device(GPU)):
        raise Skip("Triton does not serve here")
    furthest: dict[str, float] = {}
    for name, recipe in RECIPES.items():
        for count in (256, 15):  # the second runs what the first compiled, and is not to wait
            levels, draws = drawn_levels(recipe, count)
            moved, drawn = torch.from_numpy(levels).to(GPU), tables(recipe, draws, torch.device(GPU))
            torch.cuda.set_sync_debug_mode("error" if count < BATCH else "default")
            try:
                found = augment_on_gpu(moved, drawn)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            away = (found.float().cpu() - ended(levels, recipe, draws).half().float()).abs().max().item()
            furthest[name] = max(away, furthest.get(name, 0.0))
    wrong = {name: away for name, away in furthest.items() if away > (ROUNDED if RECIPES[name].color == "fused" else 0)}
    assert not wrong, f"the largest differences are {wrong}"
    return f"{sum(not away for away in furthest.values())} of {len(furthest)} recipes equal in every bit"


def drawn_levels(recipe: Any, count: int) -> tuple[Any, Any]:
    """Noise (N, S, S, 3) uint8, a third of it of few levels, and draws for it."""
    import numpy as np

    from amdim.pipeline.augment.view_params import sample_view_params

    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (count, recipe.size, recipe.size, 3), dtype=np.uint8)
    levels[::3] = rng.integers(90, 140, levels[::3].shape)
    return levels, sample_view_params(recipe, np.tile([200, 230], (count, 1)), 0, 0, 0)[0]


def ended(levels: Any, recipe: Any, draws: Any) -> Any:
    """What ``painted`` does on a GPU, by the loops for the CPU: (N, 3, S, S) float32 of levels (N, S, S, 3) uint8."""
    import numpy as np
    import torch

    from amdim.pipeline.augment.cpu import colouring, operating

    S = recipe.size
    operate, colour = operating(recipe, draws), colouring(recipe, draws)
    out, spare = np.empty((len(levels), 3, S * S), np.float32), np.empty((3, S * S), np.uint8)
    for i, image in enumerate(np.asarray(levels)):
        planes = np.ascontiguousarray(image.reshape(-1, 3).T)
        if operate:
            operate(i, planes, spare)
        colour(i, planes, out[i])
    return torch.from_numpy(out.reshape(-1, 3, S, S))


def hand_over() -> str:
    """Views are whole however far the GPU is behind: none is made where another is still to be read."""
    need_all()
    from amdim.pipeline import RECIPES

    with TemporaryDirectory() as folder:
        root = shapes(Path(folder))
        for name in ("shapes64", "strong128"):
            at_once, behind = (sums(batches(root, RECIPES[name], GPU), late) for late in (False, True))
            wrong = sum(a != b for a, b in zip(at_once, behind, strict=True))
            assert not wrong, f"{wrong} of {len(behind)} batches of {name} were not what they are when they are read at once"
    return f"{len(behind)} batches each of two recipes, all bits"


def sums(made: Iterator[Any], late: bool) -> list[list[float]]:
    """Of each view of some batches, read at once or by a GPU that has other work to do before."""
    import torch

    found, work = [], torch.randn(4096, 4096, device=GPU)
    for batch in islice(made, READ):
        if late:
            for _ in range(20):  # some milliseconds, so that it falls behind by batches
                work = (work @ work).clamp(-1, 1)
        found.append(torch.stack([x.float().square().sum((1, 2, 3)).sum() for x in (batch.x1, batch.x2)]))
        if not late:
            torch.cuda.synchronize()
    return [each.tolist() for each in found]


def memory() -> str:
    """Memory of the GPU stays as it is over batches and new loaders."""
    need_all()
    import torch

    from amdim.pipeline import RECIPES

    used = []
    with TemporaryDirectory() as folder:
        root = shapes(Path(folder))
        for _ in range(6):
            for _batch in islice(batches(root, RECIPES["strong128"], GPU), 50):
                pass
            torch.cuda.synchronize()
            free, total = torch.cuda.mem_get_info()
            used.append(total - free)
    grown = used[-1] - used[1]  # the first loader and the second fill what is kept
    assert grown <= GROWTH, f"grew by {grown / 2**20:.0f} MiB over 200 batches and 4 loaders"
    return f"{grown / 2**20:+.0f} MiB over 200 batches and 4 loaders; {used[-1] / 2**30:.2f} GiB are used"


def loading() -> str:
    """Two views an image, decoded and made on the GPU."""
    need_all()
    from amdim.pipeline import RECIPES

    with TemporaryDirectory() as folder:
        png, jpeg = shapes(Path(folder)), photographs(Path(folder))
        rates = [
            f"{speed(png, RECIPES['shapes64']):,.0f} images/s of 64 x 64 PNG",
            *(f"{name} {speed(jpeg, RECIPES[name]):,.0f} images/s of 256 px JPEG" for name in ("imagenet128", "strong128")),
        ]
    return ", ".join(rates)


def speed(root: Path, recipe: Any) -> float:
    """Images/s."""
    import torch

    made = batches(root, recipe, GPU, 256)
    for _ in range(5):
        next(made)
    torch.cuda.synchronize()
    start, images = time.perf_counter(), 0
    for batch in islice(made, 40):
        images += len(batch.x1)
    torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


def need_all() -> None:
    need("nvidia.dali", "typer", "PIL")
    need_gpu()


def batches(root: Path, recipe: Any, device: str, batch: int = BATCH) -> Iterator[Any]:
    """Decoded and resampled by DALI, epoch after epoch."""
    from amdim.pipeline import TwoViewLoader

    loader = TwoViewLoader(root, ["train"], recipe, batch, device=device, pixels="dali")
    while True:
        yield from loader


def shapes(folder: Path) -> Path:
    """A small set of generated images, PNG."""
    from amdim.shards.shapes.renderer import source

    return built(source(0, {"train": 1024, "val": 64}), folder / "shapes")


def photographs(folder: Path) -> Path:
    """A small set of what looks like photographs, JPEG."""
    from amdim.shards.sources import folder as folders
    from amdim.shards.sources.base import Encoding
    from bench.photos import write_photos

    write_photos(folder / "photos", 320)
    return built(folders.source(folder / "photos", Encoding(0, 90), seed=0, val=0.0, unlabeled=True), folder / "photographs")


def built(source: Any, out: Path) -> Path:
    from amdim.shards.build import build

    build(source, out, seed=0, workers=1, max_rejected=0, overwrite=False, show=lambda _: None)
    return out
