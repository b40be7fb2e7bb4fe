"""A contact sheet: a row of images for each class, with its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from amdim.shards import index
from amdim.shards.build_report import printable
from amdim.shards.images.decode import decode
from amdim.shards.manifest import Manifest
from amdim.shards.text_fit import letter

ROWS, COLUMNS = 20, 10  # of more than ROWS classes, evenly spaced ones are shown
THUMBNAIL, GAP, NAME_WIDTH, FONT_SIZE = 96, 4, 140, 14  # pixels
PAPER, INK = "white", "black"

Spot = tuple[Path, int, int]  # a tar, and the offset and length of an image in it
Row = tuple[int | None, list[Spot]]  # the class, if there is one


def contact_sheet(directory: Path, manifest: Manifest) -> Image.Image:
    """An RGB picture of the first images of the first split; a set without classes gets rows without names."""
    split = next(iter(manifest.splits.values()))
    tars = [directory / shard.file for shard in split.shards]
    rows, margin = (_by_class(tars, manifest.classes), NAME_WIDTH) if manifest.classes else (_in_order(tars), GAP)
    cell = THUMBNAIL + GAP
    sheet = Image.new("RGB", (margin + COLUMNS * cell, len(rows) * cell + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, (label, spots) in enumerate(rows):
        top = GAP + row * cell
        if label is not None:
            text, font = letter(printable(manifest.classes[label]), label, FONT_SIZE, NAME_WIDTH - 3 * GAP)
            pen.text((NAME_WIDTH - 2 * GAP, top + THUMBNAIL // 2), text, INK, font, anchor="rm")
        for column, spot in enumerate(spots):
            sheet.paste(_thumbnail(spot), (margin + column * cell, top))
    return sheet


def _by_class(tars: Sequence[Path], classes: Sequence[str]) -> list[Row]:
    """The first images of each class that is shown, from as many tars as it takes: they may be sorted, or classes rare."""
    shown = np.unique(np.linspace(0, len(classes) - 1, ROWS).round().astype(int))
    found: dict[int, list[Spot]] = {int(label): [] for label in shown}
    for tar in tars:
        rows = index.load_index(tar.with_suffix(".npy"))
        for label, spots in found.items():
            numbers = np.flatnonzero(rows["label"] == label)[: COLUMNS - len(spots)]
            spots.extend(_spots(tar, rows[numbers]))
        if all(len(spots) == COLUMNS for spots in found.values()):
            break
    return list(found.items())


def _in_order(tars: Sequence[Path]) -> list[Row]:
    first = tars[0]
    spots = _spots(first, index.load_index(first.with_suffix(".npy"))[: ROWS * COLUMNS])
    return [(None, spots[start : start + COLUMNS]) for start in range(0, len(spots), COLUMNS)]


def _spots(tar: Path, rows: NDArray[np.void]) -> list[Spot]:
    return [(tar, int(row["offset"]), int(row["size"])) for row in rows]


def _thumbnail(spot: Spot) -> Image.Image:
    tar, offset, size = spot
    with tar.open("rb") as file:
        file.seek(offset)
        image = decode(file.read(size)).convert("RGB")
    return ImageOps.contain(image, (THUMBNAIL, THUMBNAIL))
