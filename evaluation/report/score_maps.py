"""Score maps: where in one view the encoder finds again what it saw in the other.

A score is <source, target> / sqrt(R), softly clipped to c tanh(x / c): what the objective compares, in nats. Both views are
augmented as in training.

Shape letters: n images, L = h w locations, R embedding width, S side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from amdim.evaluation.report.embedder import Embedder
from amdim.evaluation.report.image_subset import Subset, names_of
from amdim.evaluation.report.pictures import SIDE, Picture, at_size, picture
from amdim.evaluation.segmentation.receptive_field import FIELDS, Field, upsample
from amdim.model.multiscale_nce import locations_of
from amdim.pipeline.augment.view_params import sample_view_params, slice_params
from amdim.pipeline.preview import render
from amdim.shards.manifest import Manifest

COMPARED = 64  # images, each other's negatives
SHOWN = 6
CENTRE = 2  # row and column of the source among 5x5
COLOURS = "viridis"
OPACITY = 0.62  # of the scores over the image in gray
REPLACED = "This run trained its mixture features to predict r7 in the place of r1, whose scores there mean little."


class Map(NamedTuple):
    """Scores over a view, and means over the image's own locations and over those of other images; None where there are none."""

    picture: Picture
    own: float
    others: float | None


class Scored(NamedTuple):
    """An image's first view, with the source of r5 outlined; its second view; and the maps over that."""

    name: str
    source: Picture
    target: Picture
    to_7: Map
    to_5: Map


class Scores(NamedTuple):
    """``spans`` are the least and greatest score in the colours of each map, and ``bar`` shows those colours."""

    images: list[Scored]
    spans: dict[str, tuple[float, float]]
    bar: Picture
    note: str


def score_maps(eye: Embedder, part: Subset, manifest: Manifest, settings: dict[str, Any], seed: int = 0) -> Scores:
    """Of the first images of ``part``, with the objective that ``settings`` of the run describe."""
    clip = settings["clip"]
    some = part.take(np.arange(min(COMPARED, len(part.rows))))
    draws = list(sample_view_params(eye.recipe, some.store.sizes[some.rows], seed, 0, 0))
    ((first, second),) = [[eye.encode(x) for x in pair] for pair in eye.drawn(some, [some.rows], [draws], eye.recipe)]
    few = some.take(np.arange(min(SHOWN, len(some.rows))))
    views = render(few.store, few.rows, at_size(eye.recipe, SIDE), [slice_params(view, slice(len(few.rows))) for view in draws])
    field = FIELDS[eye.encoder.config.size]
    to_7, span_7 = maps(first.r1.flatten(1), second.r7, views[1], field, clip, "r1→r7")
    to_5, span_5 = maps(first.r5[:, :, CENTRE, CENTRE], second.r5, views[1], widened(field), clip, "r5→r5")
    framed = [frame(each, widened(field), eye.recipe.size) for each in views[0]]
    images = []
    for i, name in enumerate(names_of(few, manifest)):
        what = f"view of this {name or 'image'}"
        source, target = picture(framed[i], f"first {what}"), picture(views[1][i], f"second {what}")
        images.append(Scored(name, source, target, to_7[i], to_5[i]))
    replaced = settings.get("mixture") and settings.get("mixture_mode") == "replace"
    return Scores(images, {"to_7": span_7, "to_5": span_5}, scale(), REPLACED if replaced else "")


def maps(
    sources: Tensor, targets: Tensor, views: np.ndarray, field: Field, clip: float, what: str
) -> tuple[list[Map], tuple[float, float]]:
    """Scores of sources (n, R) on targets (n, R, h, w), laid over the ``views`` of the first images, and their span."""
    raw = torch.einsum("ir,jlr->ijl", sources, locations_of(targets)) / sources.shape[1] ** 0.5
    scores = clip * torch.tanh(raw / clip)
    count, side = len(views), targets.shape[2]
    own = scores.diagonal().T
    others = (scores.mean(2).sum(1) - own.mean(1)) / max(1, len(scores) - 1)
    span = own[:count].min().item(), own[:count].max().item()
    size = field.stride * (side - 1) + field.side - 2 * field.pad
    laid = upsample(own[:count].view(count, 1, side, side), field, size, views.shape[1])[:, 0].numpy()
    found = []
    for i in range(count):
        other = others[i].item() if len(scores) > 1 else None
        alt = f"{what} scores over the second view, {own[i].mean().item():.1f} nats on average"
        found.append(Map(picture(heat(laid[i], views[i], span), alt), own[i].mean().item(), other))
    return found, span


def widened(field: Field) -> Field:
    """What a 5x5 location sees: 3x3 of the 7x7 ones."""
    return Field(field.side + 2 * field.stride, field.stride, field.pad)


def heat(scores: np.ndarray, view: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """Scores (S, S) as colours over a view (S, S, 3) in gray."""
    share = (scores - span[0]) / max(1e-9, span[1] - span[0])
    colours = mpl.colormaps[COLOURS](share)[..., :3] * 255
    gray = view.mean(2, keepdims=True)
    return (OPACITY * colours + (1 - OPACITY) * gray).astype(np.uint8)


def frame(view: np.ndarray, field: Field, size: int) -> np.ndarray:
    """The view with the square outlined that the central location sees, of a view of ``size`` pixels."""
    begin = CENTRE * field.stride - field.pad
    corners = np.array([begin, begin + field.side]) * len(view) / size
    image = Image.fromarray(view)
    box = [*np.clip(corners[[0, 0]], 1, None), *np.clip(corners[[1, 1]], None, len(view) - 2)]
    ImageDraw.Draw(image).rectangle(box, outline="white", width=2)
    return np.asarray(image)


def scale() -> Picture:
    """The colours from the least to the greatest score."""
    colours = mpl.colormaps[COLOURS](np.linspace(0, 1, 256))[None, :, :3].repeat(12, 0)
    return picture((colours * 255).astype(np.uint8), "scale of colours, from the lowest score to the highest")
