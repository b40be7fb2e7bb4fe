"""What the header of a JPEG 2000 picture says of its channels, and those of more than 8 bits by imagecodecs.

Pillow 13.0 adds half a step to such channels before it cuts them to 8 bits, which turns white into black.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from amdim.shards.images.tiff import to_8_bits
from amdim.shards.sources.base import Rejected

CODESTREAM = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ, with which every codestream begins
COUNT, TYPES = 40, 42  # bytes from there to the number of channels, and to three bytes for each, the first its type
SIGNED = 0x80
SYCC = 18  # an enumerated colour space; 16 is sRGB, 17 gray
OPACITY, PREMULTIPLIED = 1, 2  # types in a channel definition box
SECOND_DECODER = "Pillow decodes it wrongly; `pip install imagecodecs`, and it is read"


class Header(NamedTuple):
    """Channels of the codestream, the bits of the deepest, and what the boxes before it say: 0 where they say nothing."""

    channels: int
    bits: int
    signed: bool
    palette: bool
    colour_space: int
    alpha: int


def read_header(data: bytes) -> Header:
    """Return what a JP2 file or a bare codestream (ISO/IEC 15444-1, annexes A and I) says of its channels.

    Raises:
        Rejected: there is no codestream.
    """
    boxes = {} if data.startswith(CODESTREAM) else dict(reversed([*walk(data, 0, len(data))]))  # of several the first
    start = 0 if data.startswith(CODESTREAM) else boxes.get(b"jp2c", (-1, 0))[0]
    if start < 0 or data[start : start + 4] != CODESTREAM:
        raise Rejected("damaged: a JPEG 2000 file without a codestream")
    channels = int.from_bytes(data[start + COUNT : start + TYPES], "big")
    types = data[start + TYPES : start + TYPES + 3 * channels : 3]
    if not channels or len(types) != channels:
        raise Rejected("damaged: a JPEG 2000 header that is cut short")
    colour = data[slice(*boxes.get(b"colr", (0, 0)))]
    return Header(
        channels=channels,
        bits=max((each & ~SIGNED) + 1 for each in types),
        signed=any(each & SIGNED for each in types),
        palette=b"pclr" in boxes,
        colour_space=int.from_bytes(colour[3:7], "big") if colour[:1] == b"\1" else 0,
        alpha=alpha_type(data[slice(*boxes.get(b"cdef", (0, 0)))], channels),
    )


def walk(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield the kind and place of each box; those of the header are yielded in its stead."""
    while at + 8 <= end:
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        stop = end if size == 0 else at + size
        if size not in (0, 1) and size < head:
            return
        if kind == b"jp2h":
            yield from walk(data, at + head, min(stop, end))
        else:
            yield kind, (at + head, min(stop, end))
        at = stop


def alpha_type(definitions: bytes, channels: int) -> int:
    """Return what a channel definition box says of the last channel: OPACITY, PREMULTIPLIED or 0."""
    for at in range(2, len(definitions), 6):
        number, kind = (int.from_bytes(definitions[at + i : at + i + 2], "big") for i in (0, 2))
        if number == channels - 1:
            return kind
    return 0


def check(data: bytes) -> Header:
    """Return the header of a picture whose channels are known.

    Raises:
        Rejected: it has others; names them.
    """
    header = read_header(data)
    if header.signed:
        raise Rejected("signed pixels: make the least value of all images zero, and save them unsigned")
    if header.palette or header.channels in (1, 3) or (header.channels in (2, 4) and header.alpha == OPACITY):
        return header
    named = header.channels - (header.channels in (2, 4))
    raise Rejected(f"{header.channels} channels, of which the file names {named}: split them into files, or save three as RGB")


def load(image: Image.Image, data: bytes) -> Image.Image:
    """Return the pixels of an opened JPEG 2000; gray of more than 8 bits as the file's numbers, which Pillow shifts to 16 bits.

    Raises:
        Rejected: its channels are not known, or nothing here decodes them.
    """
    header = check(data)
    if header.bits > 8 and not image.mode.startswith("I"):  # colour, and gray of 9 bits
        return decode(data, header)
    image.load()
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int32)) >> (16 - min(header.bits, 16)))
    return image


def decode(data: bytes, header: Header) -> Image.Image:
    """Return a picture of more than 8 bits: gray as 32-bit integers; RGB, LA or RGBA divided by 257 and rounded.

    Raises:
        Rejected: imagecodecs is not installed, or the colour space is not RGB or gray.
    """
    try:
        import imagecodecs
    except ImportError:
        raise Rejected(f"{header.channels} channels of {header.bits} bits; {SECOND_DECODER}") from None
    if header.colour_space == SYCC or header.palette:
        raise Rejected("a JPEG 2000 of more than 8 bits that is neither RGB nor gray; convert it")
    numbers = np.asarray(imagecodecs.jpeg2k_decode(data))
    if header.channels == 1:
        return Image.fromarray(numbers.astype(np.int32))
    return Image.fromarray(to_8_bits(numbers), {2: "LA", 3: "RGB", 4: "RGBA"}[header.channels])
