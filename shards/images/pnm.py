"""PGM and PPM of 9 to 15 bits with the file's own numbers, which Pillow stretches to 16 bits or shrinks to 8."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

HEADER = 4096  # bytes in which the four words of a header stand, comments among them
FULL = 65_535


def load(image: Image.Image, data: bytes) -> Image.Image:
    """Return the pixels of an opened PNM; those of more than 8 bits as numbers of 16, whatever the largest may be."""
    image.load()
    largest = largest_value(data)
    if not 255 < largest < FULL:
        return image
    numbers = np.rint(np.asarray(image) * (largest / FULL))  # exact for gray, within a level for colour
    return Image.fromarray(numbers.astype(np.int32 if image.mode == "I" else np.uint8))


def largest_value(data: bytes) -> int:
    """Return the value that the header says is white; 0 for formats without one."""
    words = re.sub(rb"#[^\n]*", b"", data[:HEADER]).split(None, 4)
    return int(words[3]) if words[0] in (b"P2", b"P3", b"P5", b"P6") else 0
