"""What the tags of a TIFF say of its first page, and who may decode it: Pillow, tifffile where it is installed, or nobody.

A TIFF holds any number of channels of any type. Pillow decodes the common ones right, and some others wrong without a word, so
the tags decide before its pixels are used. Pillow also turns a TIFF upright by its orientation tag while it loads it, which it
does for no other format; ``decode`` does the same.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from amdim.shards.images.orientation import upright
from amdim.shards.sources.base import Rejected

KIND, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION, ORIENTATION = 254, 258, 259, 262, 270, 274  # TIFF 6.0, section 8
CHANNELS, PLANAR, EXTRA, FORMAT = 277, 284, 338, 339
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}  # channels that a photometric interpretation names
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
ASSOCIATED, UNASSOCIATED = 1, 2  # transparency among extra samples; 0 says nothing
ALPHA = (ASSOCIATED, UNASSOCIATED)
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
SEPARATE = 2
UNCOMPRESSED, OLD_JPEG = 1, 6
REDUCED, MASK = 1, 4  # bits of a page's kind
WEBP = 50_001  # a compression that the libtiff of Pillow lacks
SLIVER = 16  # pixels: a page this narrow, of as many pages and more, is a line of channels and no picture
# Channels that the software says to have spread over pages: ImageJ's hyperstacks, OME-XML, axes that tifffile notes.
SPREAD = re.compile(r'^ImageJ=.*?\bchannels=([2-9]|\d\d+)\b|\bSizeC="([2-9]|\d\d+)"|"axes": "([A-Z]*)C[A-Z]*YX"', re.DOTALL)
SECOND_DECODER = "Pillow decodes it wrongly; `pip install tifffile imagecodecs`, and it is read"


class Tags(NamedTuple):
    """The tags of a page that say what its numbers mean."""

    bits: int
    compression: int
    photometric: int
    channels: int
    separate: bool
    extra: tuple[int, ...]
    format: int
    orientation: int
    big_endian: bool
    description: str

    @property
    def alpha(self) -> bool:
        """Whether the last channel is said to be transparency."""
        return len(self.extra) == 1 and self.extra[0] in ALPHA


def read_tags(image: TiffImagePlugin.TiffImageFile) -> Tags:
    """Return the tags of an opened TIFF, with the defaults of the TIFF 6.0 specification for those that are absent.

    Raises:
        Rejected: its channels differ in type.
    """
    tags = image.tag_v2
    bits, formats = as_tuple(tags.get(BITS, 1)), as_tuple(tags.get(FORMAT, UNSIGNED))
    if len(set(formats)) > 1 or len(set(bits)) > 1:
        raise Rejected(f"channels of different types ({', '.join(map(str, bits))} bits); convert it to one type")
    old_jpeg = tags.get(COMPRESSION) == OLD_JPEG
    return Tags(
        bits=bits[0],
        compression=tags.get(COMPRESSION, UNCOMPRESSED),
        photometric=YCBCR if old_jpeg else tags.get(PHOTOMETRIC, WHITE_IS_ZERO),
        channels=tags.get(CHANNELS, 3 if old_jpeg else 1),
        separate=tags.get(PLANAR, 1) == SEPARATE,
        extra=as_tuple(tags.get(EXTRA, ())),
        format=formats[0],
        orientation=tags.get(ORIENTATION, 1),
        big_endian=tags.prefix == b"MM",
        description=str(tags.get(DESCRIPTION, "")),
    )


def as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def check(image: TiffImagePlugin.TiffImageFile) -> Tags:
    """Return the tags of a TIFF whose first page is one picture of known channels and whole numbers.

    Raises:
        Rejected: it is not; says what it is.
    """
    tags = read_tags(image)
    named = COLOURS.get(tags.photometric)
    if named is None:
        raise Rejected(f"a TIFF of photometric interpretation {tags.photometric}, which is none of gray, colour or palette")
    if tags.format == FLOAT:
        raise Rejected("floating-point pixels")
    if tags.format not in (UNSIGNED, SIGNED, UNDEFINED):
        raise Rejected("complex pixels")
    if tags.channels != named + tags.alpha:
        what = f"{tags.channels} channels, of which the file names {named + tags.alpha}"
        raise Rejected(f"{what}: split them into files, or save three as RGB")
    if tags.format == SIGNED and (tags.bits == 8 or tags.channels > 1 or tags.photometric != BLACK_IS_ZERO):
        raise Rejected("signed pixels: make the least value of all images zero, and save them unsigned")
    check_pages(image, tags)
    return tags


def check_pages(image: TiffImagePlugin.TiffImageFile, tags: Tags) -> None:
    """Refuse arrays whose channels were spread over pages; other stacks keep their first page.

    Raises:
        Rejected: the pages are no pictures.
    """
    if image.tag_v2.get(KIND, 0) & (REDUCED | MASK):
        raise Rejected("its first page is a reduced copy or a mask of another; save the picture itself as the first page")
    pages = getattr(image, "n_frames", 1)
    if pages == 1:
        return
    width, height = image.size
    if min(width, height) <= SLIVER and pages > min(width, height):
        size = f"{pages} pages of {width} x {height} pixels"
        raise Rejected(f"{size}, which look like an array (rows, columns, channels) saved without its axes; save it as one page")
    if SPREAD.search(tags.description):
        raise Rejected(f"{pages} pages, which are channels of one picture: split them into files, or save three as RGB")


def pillow_is_right(tags: Tags) -> bool:
    """Return whether Pillow 13.0 decodes such a page right: tests compare it with the arrays that pages were made of."""
    deep = tags.bits > 8
    if tags.compression == WEBP or (tags.separate and (tags.channels == 2 or tags.extra == (ASSOCIATED,))):
        return False
    if tags.separate and tags.channels > 1 and deep and tags.compression == UNCOMPRESSED:
        return False
    return not (deep and tags.channels == 1 and tags.big_endian and tags.compression != UNCOMPRESSED and tags.format == SIGNED)


def load(image: Image.Image, data: bytes) -> Image.Image:
    """Return the pixels of the first page of an opened TIFF, upright.

    Raises:
        Rejected: it is no picture of known channels and whole numbers, or nothing here decodes it.
    """
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    tags = check(image)
    if not pillow_is_right(tags):
        return decode(data, tags)
    image.load()
    return image


def decode(data: bytes, tags: Tags) -> Image.Image:
    """Return the first page by tifffile, upright: gray of 8 bits or as 32-bit integers, or 8-bit LA, RGB or RGBA.

    Raises:
        Rejected: tifffile and imagecodecs are not installed, or it is neither gray nor RGB.
    """
    try:
        import imagecodecs  # noqa: F401 - tifffile's decoders
        import tifffile
    except ImportError:
        raise Rejected(SECOND_DECODER) from None
    if tags.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        raise Rejected(f"a TIFF of photometric interpretation {tags.photometric} in a form that is not read")
    with tifffile.TiffFile(BytesIO(data)) as file:
        array: NDArray[Any] = file.pages[0].asarray()
    if tags.photometric == WHITE_IS_ZERO:
        array = 2**tags.bits - 1 - array
    return upright(as_image(array.transpose(1, 2, 0) if tags.separate and tags.channels > 1 else array, tags), tags.orientation)


def as_image(array: NDArray[Any], tags: Tags) -> Image.Image:
    """Return (H, W) or (H, W, C) whole numbers as an image; channels of 16 bits become levels of 255, rounded."""
    if tags.channels == 1:
        return Image.fromarray(array if tags.bits == 8 else array.astype(np.int32))
    if tags.bits not in (8, 16):
        raise Rejected(f"{tags.channels} channels of {tags.bits} bits; save them with 8 or 16")
    levels = array if tags.bits == 8 else to_8_bits(array)
    premultiplied = tags.extra == (ASSOCIATED,)
    mode = {2: "La" if premultiplied else "LA", 3: "RGB", 4: "RGBa" if premultiplied else "RGBA"}[tags.channels]
    image = Image.frombytes(mode, levels.shape[1::-1], levels.tobytes())
    return image.convert(mode.upper()) if premultiplied else image


def to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return 16-bit whole numbers divided by 257, rounded: the full range to the full range."""
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)
