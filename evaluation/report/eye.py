"""An encoder, with all that it takes to look at samples of a shard set.

Shape letters: n images, B of them at a time, R embedding width, S side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine import precision
from engine.checkpoint import Checkpoint
from engine.precision import Precision
from evaluation.contenders import trained
from evaluation.features import ready, represent
from evaluation.report.sample import Part
from model.encoder import Encoder, Features
from pipeline.backends import choose, cores, job_of, make_views
from pipeline.draws import Draws, centre_view
from pipeline.recipe_file import recipe_of
from pipeline.recipes import Recipe

BATCH = 256


@dataclass(frozen=True)
class Eye:
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

    def represent(self, part: Part) -> Tensor:
        """r1 of every centred view: (n, R) float32 on the CPU."""
        r1 = represent(self.encoder, self.precision, self.device)
        return torch.cat([r1(x).float().cpu() for x in self.centred(part)])

    def centred(self, part: Part) -> Iterator[Tensor]:
        """The views of evaluation, (B, 3, S, S) at a time."""
        still = self.recipe.centred()
        batches = list(part.batches(BATCH))
        draws = [[centre_view(still, part.store.sizes[rows])] for rows in batches]
        return (views[0] for views in self.drawn(part, batches, draws, still))

    def drawn(
        self, part: Part, batches: Sequence[np.ndarray], draws: Sequence[list[Draws]], recipe: Recipe
    ) -> Iterator[list[Tensor]]:
        """The views that ``draws`` say of each batch of rows of the part's store, good until the next are asked for."""
        jobs = (job_of(part.store, rows, views) for rows, views in zip(batches, draws, strict=True))
        how, count, most = choose("auto", self.device), len(draws[0]), max(map(len, batches))
        return make_views(jobs, recipe, count, most, self.device, how, cores(), part.store.set)


def open_eye(saved: Checkpoint, device: torch.device) -> Eye:
    return Eye(ready(trained(saved), device), recipe_of(saved.config), precision.choose("auto", device), device)
