"""A map of r1: images that the encoder takes for alike lie close together.

Shape letters: n images, R embedding width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from amdim.evaluation.report.embedder import Embedder
from amdim.evaluation.report.image_subset import Subset, names_of
from amdim.evaluation.report.neighbours import standardised
from amdim.evaluation.report.pictures import Picture, picture, thumbnails, tiled
from amdim.shards.manifest import Manifest

POINTS = 1000
CLASSES = 10  # more colours cannot be told apart
FEW = 100  # images of those classes, at least, or else all images are shown, without colours
FEWEST = 30  # images for t-SNE; fewer are projected on their principal components
LINEAR = 50  # principal components that t-SNE starts from
THUMB, COLUMNS = 48, 40  # of the sheet of thumbnails: pixels, and pictures side by side
SIZE, MARGIN = 600, 12  # of the drawing, in its own units


class Point(NamedTuple):
    """Where an image lies, the number of its class's colour (None without a class), and its class."""

    x: float
    y: float
    colour: int | None
    name: str


class Projection(NamedTuple):
    """``sheet`` holds a thumbnail a point, in order, ``columns`` in a row; ``total`` is how many classes there are."""

    points: list[Point]
    classes: list[str]
    total: int
    method: str
    sheet: Picture
    columns: int
    size: int


def projection(eye: Embedder, queries: Subset, manifest: Manifest, seed: int = 0) -> Projection | None:
    """Of images of the split of ``queries``, with at most CLASSES classes named; None of fewer than three images."""
    shown = choose(queries, seed)
    if len(shown.rows) < 3:
        return None
    places, method = flatten(eye.represent(shown), seed)
    present = sorted({int(label) for label in shown.labels if label >= 0})
    present = present if len(present) <= CLASSES else []
    points = []
    for (x, y), label, name in zip(places, shown.labels, names_of(shown, manifest), strict=True):
        points.append(Point(round(float(x), 1), round(float(y), 1), present.index(label) if label in present else None, name))
    sheet = picture(tiled(thumbnails(shown, eye.recipe, THUMB), COLUMNS), "thumbnails of the images in the map")
    return Projection(points, [manifest.classes[label] for label in present], len(manifest.classes), method, sheet, COLUMNS, SIZE)


def choose(queries: Subset, seed: int) -> Subset:
    """POINTS images of the split; of CLASSES classes at random where there are more, if these have enough images."""
    labels = queries.store.labels[queries.pool]
    present = np.unique(labels[labels >= 0])
    if len(present) <= CLASSES:
        return queries.take(np.arange(min(POINTS, len(queries.rows))))
    some = np.random.default_rng(seed).choice(present, CLASSES, replace=False)
    rows = [queries.pool[labels == label][: POINTS // CLASSES] for label in sorted(some)]
    chosen = np.concatenate(rows)
    return queries.of(chosen) if len(chosen) >= FEW else queries.take(np.arange(min(POINTS, len(queries.rows))))


def flatten(r1: Tensor, seed: int) -> tuple[np.ndarray, str]:
    """Places (n, 2) inside the drawing, and how they were found, of r1 (n, R)."""
    x = standardised(r1, r1).numpy()
    if not x.any():  # a collapsed encoder's images are one point
        return fit(x[:, :2]), "principal components"
    linear = PCA(min(LINEAR, *x.shape), random_state=seed).fit_transform(x)
    if len(x) < FEWEST:
        return fit(linear[:, :2]), "principal components"
    tsne = TSNE(perplexity=min(30, len(x) // 4), init="pca", random_state=seed)
    return fit(tsne.fit_transform(linear)), "t-SNE"


def fit(places: np.ndarray) -> np.ndarray:
    """The same places with the drawing's margins around them; both axes keep their proportion."""
    centred = places - (places.max(0) + places.min(0)) / 2
    return SIZE / 2 + centred / max(1e-9, np.abs(centred).max()) * (SIZE / 2 - MARGIN)
