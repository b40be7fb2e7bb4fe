"""A contact sheet: a row of images for each class, with its name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from . import index
from .decode import decode
from .lettering import letter
from .manifest import Manifest
from .report import printable

ROWS, COLUMNS = 20, 10  # of more than ROWS classes, evenly spaced ones are shown
THUMBNAIL, GAP, NAME_WIDTH, FONT_SIZE = 96, 4, 140, 14  # pixels
PAPER, INK = "white", "black"


def contact_sheet(directory: Path, manifest: Manifest) -> Image.Image:
    """An RGB picture of the first images of the first split; a set without classes gets rows without names."""
    first = next(iter(manifest.splits.values())).shards[0]
    tar = directory / first.file
    rows = _choose(index.load_index(tar.with_suffix(".npy"))["label"], manifest.classes)
    cell = THUMBNAIL + GAP
    sheet = Image.new("RGB", (NAME_WIDTH + COLUMNS * cell, len(rows) * cell + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, (label, numbers) in enumerate(rows):
        top = GAP + row * cell
        if label is not None:
            text, font = letter(printable(manifest.classes[label]), label, FONT_SIZE, NAME_WIDTH - 3 * GAP)
            pen.text((NAME_WIDTH - 2 * GAP, top + THUMBNAIL // 2), text, INK, font, anchor="rm")
        for column, thumbnail in enumerate(_thumbnails(tar, numbers)):
            sheet.paste(thumbnail, (NAME_WIDTH + column * cell, top))
    return sheet


def _choose(labels: NDArray[np.int32], classes: Sequence[str]) -> list[tuple[int | None, NDArray[np.int64]]]:
    """For each row of the sheet its class, if there is one, and the numbers of the samples in it."""
    if not classes:
        numbers = np.arange(min(len(labels), ROWS * COLUMNS))
        return [(None, part) for part in np.split(numbers, range(COLUMNS, len(numbers), COLUMNS))]
    shown = np.unique(np.linspace(0, len(classes) - 1, ROWS).round().astype(int))
    return [(int(label), np.flatnonzero(labels == label)[:COLUMNS]) for label in shown]


def _thumbnails(tar: Path, numbers: Iterable[int]) -> list[Image.Image]:
    rows = index.load_index(tar.with_suffix(".npy"))
    images = []
    with tar.open("rb") as file:
        for number in numbers:
            file.seek(int(rows[number]["offset"]))
            image = decode(file.read(int(rows[number]["size"]))).convert("RGB")
            images.append(ImageOps.contain(image, (THUMBNAIL, THUMBNAIL)))
    return images
