"""How a run's mixture divides images into parts, and how well that fits masks where it was measured."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from amdim.engine.checkpoint import Checkpoint
from amdim.engine.json_file import read_json
from amdim.evaluation.feature_extractors import weights_of
from amdim.evaluation.report.embedder import Embedder
from amdim.evaluation.report.image_subset import Subset, names_of
from amdim.evaluation.report.pictures import SIDE, Picture, picture, thumbnails
from amdim.evaluation.report.probe_tables import note_of
from amdim.evaluation.segmentation.measure import concatenate, lay_out, seer
from amdim.evaluation.segmentation.receptive_field import FIELDS
from amdim.evaluation.segmentation.segmentation_figure import blend, palette
from amdim.evaluation.segmentation.segmenters import NAMES, mixture_posterior
from amdim.shards.manifest import Manifest

SHOWN, BANK = 12, 256  # images on the page; training images whose locations are the negatives


class Segments(NamedTuple):
    """Pairs of an image and its parts, the colours of the components as CSS, and scores by method, of what ``note`` says."""

    images: list[tuple[str, Picture, Picture]]
    colours: list[str]
    scores: dict[str, dict[str, float | None]]
    note: str


def segments(eye: Embedder, saved: Checkpoint, gallery: Subset, queries: Subset, manifest: Manifest, run: Path) -> Segments:
    """Of the first images of ``queries``, with images of ``gallery`` as negatives."""
    settings = saved.config["settings"]
    see = seer(saved, eye.recipe, eye.precision, eye.device)
    shown, bank = queries.take(np.arange(min(SHOWN, len(queries.rows)))), gallery.take(np.arange(min(BANK, len(gallery.rows))))
    seen, others = (concatenate([see(x) for x in eye.centred(part)]) for part in (shown, bank))
    maps = mixture_posterior(seen, others.targets, settings["batch"], settings["clip"], settings["mixture_alpha"])
    parts = blend(lay_out(maps, seen, FIELDS[settings["encoder"]["size"]]))
    images = []
    for name, image, part in zip(names_of(shown, manifest), thumbnails(shown, eye.recipe), parts, strict=True):
        what = name or "image"
        coloured = picture(enlarged(part), f"parts of this {what}, a colour each")
        images.append((name, picture(image, what), coloured))
    colours = [f"rgb({','.join(str(round(255 * level)) for level in colour)})" for colour in palette(maps.shape[1])]
    found = read_json(run / "eval-segment.json")
    scores = found.get("methods") if isinstance(found.get("methods"), dict) else None
    scores = {NAMES.get(name, name): each for name, each in (scores or {}).items()}
    return Segments(images, colours, scores, note_of(found, "images with masks", weights_of(saved)))


def enlarged(part: Tensor) -> np.ndarray:
    """Of (s, s, 3) in 0..1: (SIDE, SIDE, 3) uint8."""
    pixels = (part * 255).round().to(torch.uint8).numpy()
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
