"""Encoded bytes to pixels, with every way to fail told in a few words."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, UnidentifiedImageError

# Raster formats whose readers run in this process: EPS would start Ghostscript, others know headers only.
WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "QOI", "PCX", "SGI", "DDS")
Image.init()
FORMATS = tuple(name for name in WANTED if name in Image.OPEN)  # a Pillow built without AVIF has no such entry
MAX_BYTES = 2**30  # a file is read whole
MAX_PIXELS = 100_000_000  # a 48 KB PNG can hold 1.2 GB of pixels, and DALI would decode it


class Rejected(Exception):
    """A sample that cannot be stored; its text is the reason."""


def open_image(data: bytes) -> Image.Image:
    """Reads the header only; raises Rejected for what is no image or has more than ``MAX_PIXELS``."""
    if not data:
        raise Rejected("zero bytes")
    with mishaps_reject(), warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        image = Image.open(BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Rejected("too large")
    return image


def decode(data: bytes) -> Image.Image:
    """The whole image in ``data``; raises Rejected."""
    image = open_image(data)
    with mishaps_reject():
        image.load()
    return image


@contextmanager
def mishaps_reject() -> Iterator[None]:
    """Turns any error into Rejected: Pillow's readers raise whatever the damage made them raise."""
    try:
        yield
    except Rejected:
        raise
    except UnidentifiedImageError:
        raise Rejected("not an image") from None
    except Image.DecompressionBombError:
        raise Rejected("too large") from None
    except Exception as error:
        text = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "", str(error))  # addresses would make equal builds unequal
        raise Rejected(f"damaged: {' '.join(text.split()) or type(error).__name__}") from None
