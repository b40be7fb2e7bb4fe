"""One way to make two views an image, in a process of its own: `bench.loader` starts it and says when to run.

It says "ready", and then, for each line on standard input, makes batches and prints their seconds, processor seconds and peak
memory, its workers' included. Every way gets the same encoded images and the same threads or workers.

Shape letters: B images of a batch, S image side.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from amdim.pipeline import TwoViewLoader
from amdim.pipeline.augment import dali_graph
from amdim.pipeline.augment.recipes import Recipe
from amdim.pipeline.dali import cores
from amdim.shards import manifest as manifests
from bench.processes import peak_bytes, processor_seconds

WARMUP, BATCHES = 8, 16  # batches of a round: what was made before it began, and what is timed


def ours(root: Path, recipe: Recipe, batch: int, pixels: str) -> Iterator[Any]:
    return endless(TwoViewLoader(root, ["train"], recipe, batch, pixels=pixels))


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def bytes_and_draws(root: Path, recipe: Recipe, batch: int) -> Iterator[Any]:
    loader = TwoViewLoader(root, ["train"], recipe, batch)
    return (loader.job(*position) for position in loader.positions(0, 0))


def decoded(root: Path, recipe: Recipe, batch: int) -> Iterator[Any]:
    """DALI's decoder fed by our reader: no views."""
    jobs = bytes_and_draws(root, recipe, batch)
    pipe = dali_graph.build(lambda: [next(jobs).encoded], recipe, 0, batch, "cpu", None, cores())
    while True:
        yield pipe.run()


def decoded_by_dali(root: Path, recipe: Recipe, batch: int) -> Iterator[Any]:  # noqa: ARG001 - as the others
    """DALI's decoder fed by DALI's own reader of WebDataset, in the order of the files."""
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline

    files = [root / shard.file for shard in manifests.load(root).splits["train"].shards]
    pipe = Pipeline(batch_size=batch, num_threads=cores(), device_id=None, prefetch_queue_depth=2)
    with pipe:
        paths, indices = [str(file) for file in files], [str(file.with_suffix(".idx")) for file in files]
        encoded = fn.readers.webdataset(paths=paths, index_paths=indices, ext=["jpg"], missing_component_behavior="error")
        pipe.set_outputs(fn.decoders.image(encoded, output_type=types.RGB))
    pipe.build()
    while True:
        yield pipe.run()


def torchvision_views(recipe: Recipe) -> Callable[[Image.Image], tuple[Tensor, Tensor]]:
    """Both views by torchvision, on Pillow images. Each is flipped for itself, which costs as much."""
    if torch.version.cuda is None:  # its wheel for CUDA describes operators that it cannot load beside torch's for the CPU
        torch.library.register_fake = lambda *_, **__: lambda operator: operator
    from torchvision import transforms as T  # type: ignore[import-not-found]

    jitter = T.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    view = T.Compose(
        [
            T.RandomResizedCrop(recipe.size, recipe.area, recipe.aspect, T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(recipe.flip),
            T.RandomApply([jitter], recipe.jitter_p),
            T.RandomGrayscale(recipe.gray_p),
            T.ToTensor(),
            T.Normalize(recipe.mean, recipe.std),
        ]
    )
    return lambda image: (view(image), view(image))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


class InMemory(Dataset[tuple[Tensor, Tensor]]):
    """The encoded images of a set, held in memory: nothing is read while views are made."""

    def __init__(self, root: Path, recipe: Recipe, batch: int) -> None:
        store = TwoViewLoader(root, ["train"], recipe, batch).store
        self.encoded = [store.encoded(i).tobytes() for i in range(len(store))]
        self.views = torchvision_views(recipe)

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.views(opened(self.encoded[index]))


def torchvision(root: Path, recipe: Recipe, batch: int) -> Iterator[Any]:
    options: dict[str, Any] = {"num_workers": cores(), "multiprocessing_context": "fork", "persistent_workers": True}
    loader = DataLoader(InMemory(root, recipe, batch), batch, shuffle=True, drop_last=True, **options)
    return endless(loader)


def webdataset(root: Path, recipe: Recipe, batch: int) -> Iterator[Any]:
    """The webdataset library: every worker reads shards drawn at random and shuffles within a buffer."""
    import webdataset as wds

    views = torchvision_views(recipe)
    files = [str(root / shard.file) for shard in manifests.load(root).splits["train"].shards]
    samples = (
        wds.WebDataset(files, resampled=True, shardshuffle=False).shuffle(1000).map(lambda sample: views(opened(sample["jpg"])))
    )
    batches = samples.batched(
        batch, partial=False, collation_fn=lambda pairs: [torch.stack(view) for view in zip(*pairs, strict=True)]
    )
    return iter(wds.WebLoader(batches, batch_size=None, num_workers=cores(), multiprocessing_context="fork"))


FEEDERS: dict[str, Callable[[Path, Recipe, int], Iterator[Any]]] = {
    "ours": partial(ours, pixels="torch"),
    "ours-dali": partial(ours, pixels="dali"),
    "torchvision": torchvision,
    "webdataset": webdataset,
    "decoded": decoded,
    "decoded-by-dali": decoded_by_dali,
    "bytes": bytes_and_draws,
}


def main(name: str, root: Path, recipe: Recipe, batch: int) -> None:
    torch.set_num_threads(1)
    batches = FEEDERS[name](root, recipe, batch)
    next(batches)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(timed(batches)), flush=True)


def timed(batches: Iterator[Any]) -> dict[str, float]:
    """One round: seconds of a batch on the clock and of processors, once those that were made before it began are gone."""
    for _ in range(WARMUP):
        next(batches)
    start, cpu = time.perf_counter(), processor_seconds()
    for _ in range(BATCHES):
        next(batches)
    wall, used = time.perf_counter() - start, processor_seconds() - cpu
    return {"seconds": wall / BATCHES, "cpu": used / BATCHES, "peak": peak_bytes()}


if __name__ == "__main__":
    name, root, fields = sys.argv[1:]
    given = json.loads(fields)
    batch = given.pop("batch")
    main(name, Path(root), Recipe(**given), batch)
