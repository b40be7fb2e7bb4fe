"""Ways to divide an image's 7x7 locations among K components without a mask: the mixture's posterior, and baselines.

Each is a function from ``Seen`` to memberships (n, K, h, w), which sum to 1 over K. What is fitted at all is fitted to training
images, so that an image's segmentation does not depend on which others are tested beside it.

Shape letters: n images, K components, L = h w locations, R embedding width, D values a point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from amdim.evaluation.segmentation.receptive_field import Field, pool
from amdim.model.mixture import log_scores, posterior
from amdim.model.streaming_nce import nce_sums

NAMES = {
    "mixture": "mixture's posterior",
    "random": "random posterior",
    "kmeans_r7": "k-means on r7",
    "kmeans_r7_by_image": "k-means on r7, each image by itself",
    "kmeans_colour": "k-means on the locations' mean colours",
    "kmeans_colour_by_image": "the same, each image by itself",
    "kmeans_pixels_by_image": "k-means on the pixels of each image, not 7x7",
}
STARTS = 3  # of each k-means, the best of which counts


class Seen(NamedTuple):
    """Of n images: RGB pixels (n, 3, S, S) in 0..1, mixture features (n, K, R), and r7 (n, L, R); float32 on the CPU."""

    rgb: Tensor
    sources: Tensor
    targets: Tensor


Segmenter = Callable[[Seen], Tensor]


def segmenters(bank: Seen, field: Field, batch: int, clip: float, alpha: float, seed: int = 0) -> dict[str, Segmenter]:
    """All of them by name.

    Args:
        bank: training images, which serve as negatives and to fit clusters.
        field: what a location sees.
        batch: global batch of the training; the negatives are weighed to count as many.
        clip: c of the objective's soft clip.
        alpha: weight of the posterior's entropy.
        seed: of what is random.
    """
    K = bank.sources.shape[1]
    colours = lambda seen: points(pool(seen.rgb, field))  # noqa: E731
    locations = lambda seen: seen.targets  # noqa: E731
    return {
        "mixture": lambda seen: mixture_posterior(seen, bank.targets, batch, clip, alpha),
        "random": noise(K, torch.Generator().manual_seed(seed)),
        "kmeans_r7": clusters(locations, bank, K, seed),
        "kmeans_r7_by_image": clusters_by_image(locations, K, seed),
        "kmeans_colour": clusters(colours, bank, K, seed),
        "kmeans_colour_by_image": clusters_by_image(colours, K, seed),
        "kmeans_pixels_by_image": clusters_by_image(lambda seen: points(seen.rgb), K, seed),
    }


def mixture_posterior(seen: Seen, bank: Tensor, batch: int, clip: float, alpha: float) -> Tensor:
    """q(k | i) of each image's own locations, with training images (m, L, R) as negatives, counted as batch - 1 of them."""
    n, K, R = seen.sources.shape
    sources = seen.sources.reshape(n * K, R)
    nobody = torch.full((n * K,), -1)
    negatives = nce_sums(sources, nobody, bank, clip).negatives * ((batch - 1) / len(bank))
    raw = torch.einsum("nkr,nlr->nkl", seen.sources, seen.targets) / R**0.5
    shifted = clip * torch.tanh(raw / clip) - clip
    return square(posterior(log_scores(negatives.view(n, K), shifted), alpha))


def noise(components: int, generator: torch.Generator) -> Segmenter:
    """A posterior of normal scores that know nothing of the image."""
    return lambda seen: square(torch.randn(len(seen.rgb), components, seen.targets.shape[1], generator=generator).softmax(1))


def clusters(of: Callable[[Seen], Tensor], bank: Seen, components: int, seed: int) -> Segmenter:
    """K-means over the points (n, L, D) of all training images: its clusters mean the same in every image."""
    fitted = KMeans(components, n_init=STARTS, random_state=seed).fit(of(bank).flatten(0, 1).numpy())

    def segment(seen: Seen) -> Tensor:
        each = of(seen)
        return members(torch.from_numpy(fitted.predict(each.flatten(0, 1).numpy())).view(each.shape[:2]), components)

    return segment


def clusters_by_image(of: Callable[[Seen], Tensor], components: int, seed: int) -> Segmenter:
    """K-means over the points of one image, for each by itself: its clusters mean nothing in another."""
    fit = KMeans(components, n_init=STARTS, random_state=seed)

    def segment(seen: Seen) -> Tensor:
        labels = [torch.from_numpy(fit.fit_predict(image.numpy())) for image in of(seen)]
        return members(torch.stack(labels), components)

    return segment


def points(maps: Tensor) -> Tensor:
    """(n, D, h, w) -> (n, h w, D)."""
    return maps.flatten(2).transpose(1, 2)


def members(labels: Tensor, components: int) -> Tensor:
    """Labels (n, L) as memberships of 0 and 1."""
    return square(F.one_hot(labels.long(), components).transpose(1, 2).float())


def square(memberships: Tensor) -> Tensor:
    """(n, K, L) -> (n, K, h, w), h = w."""
    side = round(memberships.shape[2] ** 0.5)
    return memberships.unflatten(2, (side, side))
