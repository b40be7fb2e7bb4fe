"""Features of whole splits, by all ranks in one pass over the images.

Shape letters: V views of an image, n images of a split, D features, B images of a batch, W ranks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from amdim.engine.distributed.ddp import from_first
from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.distributed.rank_coordinator import RankCoordinator
from amdim.errors import UserError
from amdim.evaluation.feature_cache import FeatureCache
from amdim.evaluation.feature_extractors import FeatureExtractor
from amdim.model.collectives import gather, world_size
from amdim.pipeline import AugmentedLoader, EvalLoader, Recipe
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.sample_store import SampleStore

VERSION = 1  # of what is made of an image: features of another one are extracted anew
BATCH = 256
SEED = 2**63  # of views: one that no training takes


class EvalData(NamedTuple):
    """A shard set, how it is looked at, and by which of the ranks."""

    data: ShardedDataset
    recipe: Recipe
    where: DistEnv
    peers: RankCoordinator
    console: Console

    def loader(self, split: str, epoch: int | None = None) -> EvalLoader:
        """The centred view of each image, or two augmented ones that differ from epoch to epoch."""
        where, whose = self.where, (self.data, [split], self.recipe)
        options: dict[str, Any] = {"rank": where.rank, "world": where.world, "device": where.device, "threads": where.threads}
        if epoch is None:
            return EvalLoader(*whose, BATCH, **options)
        return AugmentedLoader(*whose, SEED, epoch, batch=BATCH, **options)

    def labels(self, split: str) -> Tensor:
        return torch.from_numpy(SampleStore(self.data, [split]).labels)

    def identity(self, split: str) -> list[str]:
        """What decides the pixels."""
        shards = self.data.manifest.splits[split].shards
        return [*(shard.sha256 for shard in shards), repr(self.recipe), self.where.device.type]


def key(*parts: object) -> str:
    """A short name for what decides something."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def extract(images: EvalData, split: str, contenders: list[FeatureExtractor], views: int, files: FeatureCache) -> list[Tensor]:
    """Features (V, n, D) of all images of a split, unlabelled ones too, by each contender; those that have a file are read.

    Args:
        images: whose.
        split: seen in the order of its shards.
        contenders: make the features.
        views: augmented views of each image, V - 1, beside the centred one.
        files: of rank 0; arrays are named by all that decides them.

    Returns:
        On rank 0 an array for each contender, on the others none.

    Raises:
        UserError: a feature is not finite.
    """
    names = [f"{split}-{each.name}-{key(VERSION, each.identity, images.identity(split), views)}" for each in contenders]
    there = from_first([files.find(name) is not None for name in names])
    wanted = [(name, each) for name, each, done in zip(names, contenders, there, strict=True) if not done]
    shape, first = (1 + views, len(images.labels(split))), images.where.rank == 0
    with ExitStack() as stack:
        arrays = [stack.enter_context(files.new(name, (*shape, each.width))) for name, each in wanted if first]
        for view, rows, found in see(images, split, [each for _, each in wanted], views):
            for (_, each), array, x in zip(wanted, arrays, found, strict=False):  # arrays are rank 0's alone
                array[view, rows] = halved(x, f"{each.source}, on {images.data}, split {split}")
    return [files.arrays[name] for name in names] if first else []


def see(
    images: EvalData, split: str, contenders: list[FeatureExtractor], views: int
) -> Iterator[tuple[int, slice, list[Tensor]]]:
    """For each view and batch its number, its rows, and each contender's features of them."""
    if not contenders:
        return
    passes = [(0, images.loader(split))]
    passes += [(1 + 2 * epoch, images.loader(split, epoch)) for epoch in range(-(-views // 2))]
    rounds = sum(math.ceil(len(loader) / world_size()) for _, loader in passes)
    with Progress(console=images.console, transient=True, disable=not images.console.is_terminal) as bar:
        task = bar.add_task(f"features of {split}", total=rounds)
        for view, loader in passes:
            for rows, found in sweep(loader, contenders, images.peers, min(loader.each, 1 + views - view)):
                for number, x in enumerate(found, view):
                    yield number, rows, x
                bar.advance(task)


@torch.no_grad()
def sweep(
    loader: EvalLoader, contenders: list[FeatureExtractor], peers: RankCoordinator, count: int = 1
) -> Iterator[tuple[slice, list[list[Tensor]]]]:
    """A batch of each rank at a time, put together in the order of the split: its rows, and each contender's (m, D) of each of
    the first ``count`` views.

    Ranks take turns with the batches, so that a batch holds the same images whatever their number.
    """
    n, step, mine = len(loader.store), loader.batch * world_size(), loader.views()
    for first in range(0, n, step):
        _, views = next(mine, (n, [None] * loader.each))
        rows = slice(first, min(first + step, n))
        yield rows, [[together(x, each, loader)[: rows.stop - first] for each in contenders] for x in views[:count]]
        peers.reached(first)  # that this rank is alive


def together(x: Tensor | None, contender: FeatureExtractor, loader: EvalLoader) -> Tensor:
    """Features (W B, D) of the batches of all ranks, filled up with zeros: the last one is short, and a rank may have none."""
    if world_size() == 1:
        assert x is not None
        return contender.function(x).float()
    padded = torch.zeros(loader.batch, contender.width, device=loader.device)
    if x is not None:
        padded[: len(x)] = contender.function(x)
    return gather(padded)


def halved(x: Tensor, what: str) -> np.ndarray:
    half = x.half()
    if not half.isfinite().all():
        raise UserError(f"{what}: features are not finite, or beyond 65,504; take an earlier --checkpoint")
    return half.cpu().numpy()
