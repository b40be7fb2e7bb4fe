"""An encoder, with all that it takes to look at samples of a shard set.

Shape letters: n images, B of them at a time, R embedding width, S side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from amdim.engine import precision
from amdim.engine.checkpoint import Checkpoint
from amdim.engine.precision import Precision
from amdim.evaluation.feature_extractors import trained
from amdim.evaluation.features import ready, represent
from amdim.evaluation.report.image_subset import Subset
from amdim.model.encoder import Encoder, Features
from amdim.pipeline.augment.recipe_file import recipe_of
from amdim.pipeline.augment.recipes import Recipe
from amdim.pipeline.augment.view_params import ViewParams, center_view_params
from amdim.pipeline.dali import batch_request, choose_backend, cores, make_views

BATCH = 256


@dataclass(frozen=True)
class Embedder:
    """Looks at images as evaluation does: an encoder with the statistics of training, and the recipe's own views."""

    encoder: Encoder
    recipe: Recipe
    precision: Precision
    device: torch.device

    @torch.no_grad()
    def encode(self, x: Tensor) -> Features:
        """Of (B, 3, S, S): all three outputs, float32 on the CPU."""
        with self.precision.autocast(self.device):
            return Features(*(each.float().cpu() for each in self.encoder(x.to(self.device))))

    def represent(self, part: Subset) -> Tensor:
        """r1 of every centred view: (n, R) float32 on the CPU."""
        r1 = represent(self.encoder, self.precision, self.device)
        return torch.cat([r1(x).float().cpu() for x in self.centred(part)])

    def centred(self, part: Subset) -> Iterator[Tensor]:
        """The views of evaluation, (B, 3, S, S) at a time."""
        still = self.recipe.centred()
        batches = list(part.batches(BATCH))
        draws = [[center_view_params(still, part.store.sizes[rows])] for rows in batches]
        return (views[0] for views in self.drawn(part, batches, draws, still))

    def drawn(
        self, part: Subset, batches: Sequence[np.ndarray], draws: Sequence[list[ViewParams]], recipe: Recipe
    ) -> Iterator[list[Tensor]]:
        """The views that ``draws`` say of each batch of rows of the part's store, good until the next are asked for."""
        jobs = (batch_request(part.store, rows, views) for rows, views in zip(batches, draws, strict=True))
        how, count, most = choose_backend("auto", self.device), len(draws[0]), max(map(len, batches))
        return make_views(jobs, recipe, count, most, self.device, how, cores(), part.store.set)


def open_embedder(saved: Checkpoint, device: torch.device) -> Embedder:
    return Embedder(ready(trained(saved), device), recipe_of(saved.config), precision.choose("auto", device), device)
