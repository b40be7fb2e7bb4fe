"""Nearest neighbours by r1: what the encoder takes for alike.

Shape letters: q queries, n images of the gallery, R embedding width, K neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from amdim.evaluation.features import fit_scaler, labelled
from amdim.evaluation.report.image_subset import Subset, names_of
from amdim.evaluation.report.pictures import Picture, picture, thumbnails
from amdim.pipeline.augment.recipes import Recipe
from amdim.shards.manifest import Manifest

K = 8
SHOWN = 5  # rows of each kind, right and wrong


class Neighbour(NamedTuple):
    """``same`` is whether its class is the query's; None where one of them has none."""

    picture: Picture
    name: str
    cosine: float
    same: bool | None


class Row(NamedTuple):
    """A query, the class for which its neighbours vote, and they."""

    query: Picture
    name: str
    vote: str
    neighbours: list[Neighbour]


class Neighbours(NamedTuple):
    """Rows by whether the vote is right, or all under ``unknown``; ``accuracy`` is the share of right votes of ``queries``."""

    rows: dict[str, list[Row]]
    accuracy: float | None
    queries: int
    gallery: int


class Found(NamedTuple):
    """Rows of the gallery nearest to each query and their cosines, both (q, K), and the class (q,) that they vote for, or -1."""

    gallery: Subset
    queries: Subset
    nearest: np.ndarray
    cosine: np.ndarray
    vote: np.ndarray


def neighbours(
    gallery: Subset, queries: Subset, seen: tuple[Tensor, Tensor], manifest: Manifest, recipe: Recipe, seed: int = 0
) -> Neighbours:
    """Of r1 (n, R) and (q, R), in that order in ``seen``."""
    nearest, cosine = look_up(*seen)
    found = Found(gallery, queries, nearest, cosine, votes(gallery.labels[nearest], cosine))
    known, right = (queries.labels >= 0) & (found.vote >= 0), found.vote == queries.labels
    order = np.random.default_rng(seed).permutation(len(queries.rows))
    if not known.any():
        rows = {"unknown": draw(found, order[: 2 * SHOWN], manifest, recipe)}
        return Neighbours(rows, None, len(order), len(gallery.rows))
    kinds = {"right": known & right, "wrong": known & ~right}
    rows = {kind: draw(found, order[which[order]][:SHOWN], manifest, recipe) for kind, which in kinds.items()}
    return Neighbours(rows, float(right[known].mean()), int(known.sum()), len(gallery.rows))


def look_up(gallery: Tensor, queries: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the K nearest in the gallery, and their cosines, of features standardised as probes do: both (q, K)."""
    x, y = (F.normalize(standardised(each, gallery)) for each in (gallery, queries))
    cosine, nearest = (y @ x.T).topk(min(K, len(gallery)))
    return nearest.numpy(), cosine.numpy()


def standardised(x: Tensor, by: Tensor) -> Tensor:
    """Features (q, R) with the mean and variance of others, (n, R), as 0 and 1."""
    return fit_scaler(labelled(by, torch.zeros(len(by), dtype=torch.int64)), x.device)(x)


def votes(labels: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """The class (q,) with the most neighbours of (q, K), the nearer one among equals; -1 where none is labelled."""
    found = np.full(len(labels), -1)
    for i, own in enumerate(labels):
        weight: dict[int, float] = {}
        for label, near in zip(own[own >= 0].tolist(), cosine[i][own >= 0].tolist(), strict=True):
            weight[label] = weight.get(label, 0.0) + 1 + 1e-3 * near
        found[i] = max(weight, key=lambda label: weight[label]) if weight else -1
    return found


def draw(found: Found, which: np.ndarray, manifest: Manifest, recipe: Recipe) -> list[Row]:
    """A row for each of the queries ``which``, with pictures."""
    asked = found.queries.take(which)
    pictures, rows = thumbnails(asked, recipe), []
    beside = drawn(found, which, manifest, recipe)
    for i, (query, name) in enumerate(zip(which, names_of(asked, manifest), strict=True)):
        vote = manifest.classes[found.vote[query]] if found.vote[query] >= 0 else ""
        rows.append(Row(picture(pictures[i], f"query: {name or 'no label'}"), name, vote, beside[i]))
    return rows


def drawn(found: Found, which: np.ndarray, manifest: Manifest, recipe: Recipe) -> list[list[Neighbour]]:
    """The neighbours of each of the queries ``which``."""
    hits, own = found.gallery.take(found.nearest[which].flatten()), found.queries.labels[which]
    parts = zip(thumbnails(hits, recipe), names_of(hits, manifest), hits.labels, found.cosine[which].flatten(), strict=True)
    count, flat = found.nearest.shape[1], []
    for j, (pixels, name, label, cosine) in enumerate(parts):
        label_of_query = own[j // count]
        same = bool(label == label_of_query) if min(label, label_of_query) >= 0 else None
        flat.append(Neighbour(picture(pixels, f"neighbour {j % count + 1}: {name or 'no label'}"), name, float(cosine), same))
    return [flat[i * count : (i + 1) * count] for i in range(len(which))]
