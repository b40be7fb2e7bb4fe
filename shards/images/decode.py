"""Encoded bytes to pixels, with every way to fail told in a few words."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from amdim.errors import UserError
from amdim.shards.images import jpeg, jpeg2000, png, pnm, tiff
from amdim.shards.sources.base import Rejected

# Raster formats whose readers run in this process: EPS would start Ghostscript, others know headers only.
WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "QOI", "PCX", "SGI", "DDS")
Image.init()
FORMATS = tuple(name for name in WANTED if name in Image.OPEN)  # a Pillow built without AVIF has no such entry
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two with 64-bit offsets
LOADERS = {"TIFF": tiff.load, "JPEG2000": jpeg2000.load, "PNG": png.load, "PPM": pnm.load}  # where Pillow alone is not enough
MAX_BYTES = 2**30  # a file is read whole
MAX_SIDE = 65_500  # pixels, as far as a JPEG goes
MAX_PIXELS = 100_000_000  # a 48 KB PNG can hold 1.2 GB of pixels, and DALI would decode it
# For all threads and for good: filters that come and go are no business of a thread. What is too large is refused below.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks on damaged tags, which are not used


def open_image(data: bytes) -> Image.Image:
    """Reads the header only; raises Rejected for what is no image or has more than ``MAX_PIXELS``."""
    if not data:
        raise Rejected("zero bytes")
    with mishaps_reject():
        image = _opened(data)
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise Rejected("too large")
    return image


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if data[:4] in TIFF:
            raise Rejected("a damaged TIFF, or one of channels or numbers that are not read") from None
        raise


def decode(data: bytes) -> Image.Image:
    """The whole image in ``data``; raises Rejected."""
    return load(open_image(data), data)


def load(image: Image.Image, data: bytes, least: int = 0) -> Image.Image:
    """Return the pixels of an image that was opened.

    Args:
        least: if not 0, a JPEG may come shrunk to no less than so many pixels on its shorter side.

    Raises:
        Rejected: they are damaged, or not surely those that the file means.
    """
    with mishaps_reject():
        if image.format == "JPEG" and (decoded := jpeg.decode(data, image.mode, least)):
            return decoded
        if image.format in LOADERS:
            return LOADERS[image.format](image, data)
        image.load()
    return image


def _room_for_an_image() -> bool:
    """Whether it is the image that is wrong, and not the machine that is full: Pillow calls absurd sizes a MemoryError."""
    try:
        return len(bytearray(4 * MAX_PIXELS)) > 0
    except MemoryError:
        return False


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
    except MemoryError:
        if not _room_for_an_image():
            raise UserError("out of memory; try again with fewer --workers: what is done is kept") from None
        raise Rejected("damaged: asks for more memory than an image takes") from None
    except Exception as error:
        text = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "", str(error))  # addresses would make equal builds unequal
        raise Rejected(f"damaged: {' '.join(text.split()) or type(error).__name__}") from None
