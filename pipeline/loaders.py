"""Loaders: a shard set as batches of two views for training, or of one centred view for evaluation.

A loader's whole state is (epoch, step): the order of samples and the parameters of the views are functions of it. Batches are
made ahead of need, so the state counts those delivered, and restoring it makes a new pipeline that starts there.

Shape letters: B images of this rank, N of the global batch, S image side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from amdim.errors import UsageError
from amdim.pipeline.augment.recipes import Recipe
from amdim.pipeline.augment.view_params import ViewParams, center_view_params, sample_locations, sample_view_params, slice_params
from amdim.pipeline.dali import BACKENDS, PREFETCH, BatchRequest, backend_name, batch_request, choose_backend, cores, make_views
from amdim.pipeline.dataset import ShardedDataset, as_dataset
from amdim.pipeline.sample_store import SampleStore, batch_that_fits
from amdim.pipeline.sampler import kept_order, steps_in_epoch
from amdim.pipeline.shard_schedule import ShardUse, shard_uses, working_set_bytes

MARGIN = 1.25  # of the room for shards, where few samples are kept


class Views(NamedTuple):
    """Two views (B, 3, S, S), channels-last, and labels (B,) int64 with -1 for unlabelled."""

    x1: Tensor
    x2: Tensor
    label: Tensor


class TwoViewLoader:
    """Iterates the rest of the current epoch as ``Views``; the next iteration is the next epoch.

    Args:
        root: a shard set, or its directory.
        splits: the splits to draw from.
        recipe: what a view is.
        batch: global batch N, divisible by ``world``.
        rank, world: this process and how many there are; each gets its slice of the same global batches.
        device: where the views are made and delivered.
        seed: of order and views.
        threads: for decoding and views; all cores of this process by default.
        pixels: what makes the views: "dali", "torch" (CPU only), or "auto" for the faster.
        prefetch: batches made ahead of the one in use, which is good until the next is asked for. Changes no bit.
        keep: (samples,) bool, the samples to draw; all by default.

    Raises:
        UsageError: where no batch can be made of what is asked.
    """

    def __init__(
        self,
        root: Path | ShardedDataset,
        splits: Sequence[str],
        recipe: Recipe,
        batch: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        seed: int = 0,
        threads: int | None = None,
        pixels: str = "auto",
        prefetch: int = PREFETCH,
        keep: np.ndarray | None = None,
    ) -> None:
        self.root, self.recipe, self.batch, self.rank, self.world, self.seed = as_dataset(root), recipe, batch, rank, world, seed
        self.device = torch.device(device)
        self.pixels, self.threads = choose_backend(pixels, self.device), threads or cores()
        self.prefetch = prefetch
        self.manifest = self.root.manifest
        self.store = SampleStore(self.root, splits)
        self.splits = tuple(splits)
        self.epoch = self.step = 0
        self.keep = np.ones(len(self.store), bool) if keep is None else keep
        self.order = lru_cache(maxsize=3)(partial(kept_order, self.keep, self.store.shard_sizes, self.seed))
        self.views: Iterator[list[Tensor]] | None = None
        self.check()

    def check(self) -> None:
        if self.batch < 2 or self.batch % self.world:
            fits = max(1, self.batch // self.world, 2 // self.world) * self.world
            raise UsageError(
                f"--batch-size {self.batch}: must be at least 2 and divisible by the number of ranks, {self.world}; try {fits}"
            )
        if len(set(self.splits)) < len(self.splits):
            raise UsageError(f"{self.root}: {'+'.join(self.splits)} names a split twice, and no image comes twice in an epoch")
        if len(self) == 0:
            fits = len(self.store) // 2 // self.world * self.world  # two steps an epoch at least
            advice = f"try --batch-size {fits}" if fits >= 2 else f"that is too few for {self.world} ranks"
            samples = f"{len(self.store)} samples in {'+'.join(self.splits)}"
            raise UsageError(f"{self.root}: {samples} are less than one batch of {self.batch}; {advice}")
        self.root.admit(self.room)

    @property
    def form(self) -> str:
        """What the last bits of views depend on."""
        return backend_name(self.pixels, self.device)

    @property
    def makers(self) -> str:
        """Who makes the views, and why."""
        return BACKENDS[self.form]

    @property
    def room(self) -> int:
        """Bytes of shards to have at a time. Few kept samples lie among many, and not evenly: a margin for that."""
        spread = len(self.store) / int(self.keep.sum())
        return working_set_bytes(self.store.shards, int(self.batch * spread * (MARGIN if spread > 1 else 1)))

    def __len__(self) -> int:
        """Steps of an epoch, equal on every rank."""
        return steps_in_epoch(int(self.keep.sum()), self.batch)

    def __iter__(self) -> Iterator[Views]:
        while self.step < len(self):
            samples = self.samples(self.epoch, self.step)
            x1, x2 = self.next_views()
            self.step += 1
            yield Views(x1, x2, torch.from_numpy(self.store.labels[samples]))
        self.epoch, self.step = self.epoch + 1, 0

    def next_views(self) -> list[Tensor]:
        if self.views is None:
            self.views = self.start()
        try:
            return next(self.views)
        except BaseException:
            self.views = None  # whoever asks again starts at the step that failed
            raise

    def start(self) -> Iterator[list[Tensor]]:
        """The views of every step from where the loader stands."""
        # Not self, which holds the views: a circle, and its thread, would stay until the next garbage collection.
        plan = copy(self)
        self.root.expect(plan.needs(self.epoch, self.step), self.room, len(self), self.world)
        jobs = (plan.job(*position) for position in plan.positions(self.epoch, self.step))
        share = self.batch // self.world
        return make_views(jobs, self.recipe, 2, share, self.device, self.pixels, self.threads, self.root, self.prefetch)

    def positions(self, epoch: int, step: int) -> Iterator[tuple[int, int]]:
        """Every (epoch, step) from a given one on, without end."""
        while True:
            for each in range(step, len(self)):
                yield epoch, each
            epoch, step = epoch + 1, 0

    def needs(self, epoch: int, step: int) -> Iterator[ShardUse]:
        """Which shards all steps from a given one on read; the same on every rank."""
        while True:
            rows = self.order(epoch)[step * self.batch : len(self) * self.batch]
            yield from shard_uses(self.store.shards, self.store.numbers(rows), self.batch, epoch * len(self) + step)
            epoch, step = epoch + 1, 0

    def samples(self, epoch: int, step: int) -> np.ndarray:
        """Numbers of this rank's samples in a step: (B,)."""
        return self.order(epoch)[step * self.batch : (step + 1) * self.batch][self.mine]

    @property
    def mine(self) -> slice:
        """This rank's rows of a global batch."""
        share = self.batch // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def job(self, epoch: int, step: int) -> BatchRequest:
        """What one step is made of. Draws are for the global batch, so that they do not depend on the ranks."""
        self.root.reach(epoch * len(self) + step)
        rows = self.order(epoch)[step * self.batch : (step + 1) * self.batch]
        draws = sample_view_params(self.recipe, self.store.sizes[rows], self.seed, epoch, step)
        return batch_request(self.store, rows[self.mine], [slice_params(view, self.mine) for view in draws])

    def locations(self, epoch: int, step: int) -> Tensor:
        """The source locations of r5 to r5 in a step: (2, B) int64."""
        return torch.from_numpy(sample_locations(self.seed, epoch, step, self.batch)[:, self.mine].copy())

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "step": self.step, "fingerprint": self.fingerprint()}

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a state to mean the same batches. Ranks are not in it: any number may take over."""
        hashes = [shard.sha256 for split in self.splits for shard in self.manifest.splits[split].shards]
        return {"shards": hashes, "recipe": repr(self.recipe), "pixels": self.pixels, "batch": self.batch, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues at a saved state.

        Raises:
            UsageError: when the state was saved with other shards, recipe, pixels, batch or seed; names them.
        """
        own = self.fingerprint()
        changed = [name for name in own if own[name] != state["fingerprint"].get(name)]
        if changed:
            raise UsageError(f"{self.root}: cannot resume, as {' and '.join(changed)} changed; start anew with another --run")
        self.epoch, self.step, self.views = state["epoch"], state["step"], None


class EvalLoader:
    """Iterates a whole split once, in its order, as (x (B, 3, S, S), labels (B,)): the centred view, the last batch shorter.

    Args:
        root: a shard set, or its directory.
        splits: the splits to read.
        recipe: the training recipe; its centred form is used, through the same decoder and resampling.
        batch: images at a time; fewer where these are so large that a batch would fill the memory (``at_a_time``).
        device: where views are delivered.
        pixels, prefetch: as for training.
        rank, world: this process and how many there are; each gets every ``world``-th batch.
        threads: for decoding and views; all cores of this process by default.
    """

    each = 1  # views of an image

    def __init__(
        self,
        root: Path | ShardedDataset,
        splits: Sequence[str],
        recipe: Recipe,
        batch: int = 256,
        device: torch.device | str = "cpu",
        pixels: str = "auto",
        prefetch: int = PREFETCH,
        rank: int = 0,
        world: int = 1,
        threads: int | None = None,
    ) -> None:
        self.root, self.recipe, self.device = as_dataset(root), recipe.centred(), torch.device(device)
        self.pixels, self.prefetch = choose_backend(pixels, self.device), prefetch
        self.rank, self.world, self.threads = rank, world, threads or cores()
        self.manifest = self.root.manifest
        self.store = SampleStore(self.root, splits)
        self.batch = batch_that_fits(self.store.sizes, batch)

    def __len__(self) -> int:
        return math.ceil(len(self.store) / self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start, (x, *_) in self.views():
            yield x, torch.from_numpy(self.store.labels[start : start + self.batch])

    def views(self) -> Iterator[tuple[int, list[Tensor]]]:
        """Each batch of this rank: the number of its first image, and its views."""
        numbers, room = self.store.numbers(np.arange(len(self.store))), working_set_bytes(self.store.shards, self.batch)
        self.root.expect(iter(shard_uses(self.store.shards, numbers, self.batch, 0)), room, len(self), self.world)
        starts = range(self.rank * self.batch, len(self.store), self.world * self.batch)
        own = self.device, self.pixels, self.threads, self.root, self.prefetch
        yield from zip(starts, make_views(map(self.job, starts), self.recipe, self.each, self.batch, *own), strict=True)

    def job(self, start: int) -> BatchRequest:
        self.root.reach(start // self.batch)
        rows = np.arange(start, min(start + self.batch, len(self.store)))
        return batch_request(self.store, rows, self.draws(rows))

    def draws(self, rows: np.ndarray) -> list[ViewParams]:
        return [center_view_params(self.recipe, self.store.sizes[rows])]


class AugmentedLoader(EvalLoader):
    """The same whole split in its order, each image as two augmented views: those of ``views()``.

    They are functions of (seed, epoch, place in the split), whatever the ranks.

    Args:
        seed: of the views.
        epoch: others in each.
    """

    each = 2

    def __init__(
        self, root: Path | ShardedDataset, splits: Sequence[str], recipe: Recipe, seed: int, epoch: int, **options: Any
    ) -> None:
        super().__init__(root, splits, recipe, **options)
        self.recipe, self.seed, self.epoch = recipe, seed, epoch

    def draws(self, rows: np.ndarray) -> list[ViewParams]:
        return list(sample_view_params(self.recipe, self.store.sizes[rows], self.seed, self.epoch, int(rows[0]) // self.batch))
