"""PNG beyond what Pillow does: checksums of all chunks, and a gray picture's transparent level."""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

from amdim.shards.images.tiff import to_8_bits
from amdim.shards.sources.base import Rejected

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BIT_DEPTH, COLOUR_TYPE = 24, 25  # byte positions in the fixed header
GRAY, RGB = 0, 2  # colour types


def is_plain(data: bytes, image: Image.Image) -> bool:
    """Return whether a PNG is 8-bit gray or RGB without transparency."""
    return data[BIT_DEPTH] == 8 and data[COLOUR_TYPE] in (GRAY, RGB) and "transparency" not in image.info


def load(image: Image.Image, data: bytes) -> Image.Image:
    """Return the pixels of an opened PNG.

    Raises:
        ValueError: a checksum is wrong; Pillow compares not all of them, and DALI does.
        Rejected: it has a transparent colour of 16 bits, of which Pillow keeps 8.
    """
    image.load()
    if not has_right_checksums(data):
        raise ValueError("a checksum in the PNG is wrong")
    if "transparency" not in image.info or data[COLOUR_TYPE] not in (GRAY, RGB):
        return image
    if data[BIT_DEPTH] == 16:
        return with_alpha_of_key(image, data)
    if data[COLOUR_TYPE] == GRAY and data[BIT_DEPTH] in (2, 4):  # Pillow scales the levels to 255, and not the key
        image.info["transparency"] *= 255 // (2 ** data[BIT_DEPTH] - 1)
    return image


def with_alpha_of_key(image: Image.Image, data: bytes) -> Image.Image:
    """Return 16-bit gray as 8-bit gray with transparency where the level is the key."""
    if data[COLOUR_TYPE] == RGB:
        raise Rejected("a transparent colour of 16 bits; save it with an alpha channel")
    values = np.asarray(image)
    alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([to_8_bits(values), alpha]), "LA")


def has_right_checksums(data: bytes) -> bool:
    """Walk the chunks: length, kind, contents and the CRC of the last two."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False
