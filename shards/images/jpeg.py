"""JPEG by way of libjpeg-turbo with its warnings heard: Pillow and DALI decode garbage without a word.

The decoder is ``simplejpeg``, whose strict mode raises on the first warning; its pixels are Pillow's, bit for bit.
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

COLOURS = {"L": "GRAY", "RGB": "RGB"}  # Pillow's modes; it decodes the others itself
CORRUPT = "Corrupt JPEG data"  # libjpeg's words for what was found in the scan; other warnings are about harmless oddities
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
END = b"\xff\xd9"
BASELINE, PROGRESSIVE = (0xC0, 0xC1), 0xC2  # frame markers: Huffman-coded in one go, in several


class Corrupt(ValueError):
    """Something in the scan is not what an encoder writes."""


def decode(data: bytes, mode: str, least: int) -> Image.Image | None:
    """The pixels, in Pillow's ``mode``; None where only Pillow may know.

    If ``least`` is not 0, the decoder itself may shrink the picture, to no less than ``least`` on its shorter side, by leaving
    out high frequencies: less than half of the work for a large photograph. ``bench/shards.py`` prints what it changes.

    Raises Corrupt for damage within the scan.
    """
    if mode not in COLOURS:
        return None
    try:
        sizes = {"min_height": least, "min_width": least, "min_factor": 2} if least else {}
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, COLOURS[mode], **sizes)
    except ValueError as error:
        if CORRUPT in str(error) and not _is_padding(data, str(error)):
            raise Corrupt(str(error)) from None
        return None
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels)


def frame(data: bytes) -> int:
    """The marker that says how a JPEG is coded; 0 if there is none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # tables, and one that is reserved
            return marker
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _is_padding(data: bytes, message: str) -> bool:
    """Whether all that was found is zeros before the end, which some cameras write."""
    found = EXTRANEOUS.search(message)
    end = data.rfind(END)
    return bool(found) and not any(data[end - int(found[1]) : end])  # type: ignore[index]
