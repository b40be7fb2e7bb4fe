"""An item of a source to the bytes that are stored.

A file keeps its own bytes where DALI decodes them as they are: an upright baseline JPEG, 8-bit gray or RGB PNG or still WebP,
small enough. All else becomes a baseline JPEG, 4:2:0: turned upright, transparency over white, 16-bit gray
divided by 257, CMYK to RGB, the first frame of several. Colour profiles are dropped, not applied. Arrays become PNG.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amdim.shards.images import jpeg, png
from amdim.shards.images.decode import load, mishaps_reject, open_image
from amdim.shards.images.jpeg import BASELINE, PROGRESSIVE
from amdim.shards.images.orientation import ON_ITS_SIDE, orientation, upright
from amdim.shards.sources.base import Encoding, Rejected

SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
DRAFT = 2  # the JPEG decoder may shrink a picture to this many times the size wanted; the filter does the rest
WHITE, DIM = 65_535, 16  # of 16 bits; the level of 255 that an image with a sixteenth of the range stays below
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and one of its values


@dataclass(frozen=True)
class Stored:
    """An encoded image, the upright width and height it had before any shrinking, and the pixels that were stored.

    ``dim`` says that it had 16 bits, and used a sixteenth of their range or less.
    """

    suffix: str
    data: bytes
    width: int
    height: int
    pixels: Image.Image
    dim: bool = False


def store(image: bytes | NDArray[np.uint8], encoding: Encoding | None) -> Stored:
    """Encodes an array as PNG, and a file as ``encoding`` says; raises Rejected for what is no image."""
    if isinstance(image, np.ndarray):
        return Stored("png", encode_png(image), image.shape[1], image.shape[0], Image.fromarray(image))
    if encoding is None:
        raise TypeError("a source of files needs an encoding")
    with mishaps_reject():
        return _store_file(image, encoding)


def encode_png(array: NDArray[np.uint8]) -> bytes:
    """A uint8 array, (H, W) or (H, W, 3), as PNG.

    zlib's run-length strategy: on noisy pictures twice as fast as the default and no larger, and free of its hash tables,
    which zlib-ng lays out by the processor's instruction set.
    """
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def _store_file(data: bytes, encoding: Encoding) -> Stored:
    image = open_image(data)
    turn = orientation(image)
    width, height = image.size[::-1] if turn >= ON_ITS_SIDE else image.size
    fits = encoding.size == 0 or min(image.size) <= encoding.size
    if fits and turn == 1 and _keeps(image, data, encoding):
        return Stored(SUFFIXES[image.format or ""], data, width, height, load(image, data))
    whole = load(image, data, DRAFT * encoding.size)
    plain = _plain(whole)
    dim = whole.mode.startswith("I") and plain.histogram()[DIM + 1 :] == [0] * (255 - DIM)
    pixels = _shrink(plain, encoding.size)
    pixels = upright(pixels, turn)
    pixels.info = {}  # else comments and such would be written too
    buffer = BytesIO()
    pixels.save(buffer, "JPEG", quality=encoding.quality, subsampling="4:2:0")
    return Stored("jpg", buffer.getvalue(), width, height, pixels, dim)


def _keeps(image: Image.Image, data: bytes, encoding: Encoding) -> bool:
    """Whether DALI sees in these bytes, read without regard to EXIF, what Pillow sees."""
    if getattr(image, "n_frames", 1) != 1:
        return False
    if image.format == "JPEG":
        kept = (*BASELINE, PROGRESSIVE) if encoding.size == 0 else BASELINE
        return jpeg.frame(data) in kept and image.mode in ("L", "RGB")
    if image.format == "PNG":
        return png.is_plain(data, image)
    return image.format == "WEBP" and image.mode == "RGB"


def _plain(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit gray or RGB."""
    if image.mode == "F":
        raise Rejected("floating-point pixels")
    if image.mode.startswith("I"):
        return Image.fromarray(((_sixteen_bits(image) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        front = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", front.size, "white"), front).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _sixteen_bits(image: Image.Image) -> NDArray[np.int64]:
    """The values of a gray image, 0 black: Pillow turns a TIFF that has 0 for white the right way round only if it has 8 bits."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0:
        raise Rejected("negative pixels")
    if values.max() > WHITE:
        raise Rejected("pixels of more than 16 bits")
    inverted = image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
    return WHITE - values if inverted else values


def _shrink(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to ``size``, the other in proportion; never enlarges."""
    shorter = min(image.size)
    if size == 0 or shorter <= size:
        return image
    width, height = (max(size, round(side * size / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
