"""Generated pictures in many encodings, each with the 8-bit array that it must be stored as: what the test runs over.

``expected`` is (H, W) or (H, W, 3) uint8; None where no array is right for all and only a rejection is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from typing import NamedTuple

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 24, 40
ORIENTATION = 274
UPRIGHT = {  # how a stored array becomes the upright picture, by the EXIF and TIFF number
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


class Case(NamedTuple):
    """One encoded picture; ``tolerance`` is in levels of 255, for each pixel."""

    name: str
    data: bytes
    expected: np.ndarray | None
    tolerance: float = 1


def picture(channels: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture without symmetry, from black to white in each channel: (H, W, channels) in 0..1."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(5 * x + 3 * y + 1.3 * k) + 0.5 * np.cos(11 * x * y + k) + 0.3 * x for k in range(channels)]
    stacked = np.stack(waves, -1)
    low, high = stacked.min((0, 1)), stacked.max((0, 1))
    return (stacked - low) / (high - low)


def levels(values: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers of ``bits`` bits for values in 0..1."""
    return np.rint(values * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """What 16-bit values are stored as."""
    return np.rint(values / 257).astype(np.uint8) if values.dtype.itemsize > 1 else values


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """8-bit colour laid over white by 8-bit alpha."""
    weight = (alpha / 255.0)[..., None] if colour.ndim == 3 else alpha / 255.0
    return np.rint(colour * weight + 255 * (1 - weight)).astype(np.uint8)


def tiff(array: np.ndarray, orientation: int = 1, **options: object) -> bytes:
    file = BytesIO()
    extra = [(ORIENTATION, "H", 1, orientation, True)] if orientation != 1 else []
    tifffile.imwrite(file, array, extratags=extra, metadata=None, **options)
    return file.getvalue()


def tiffs() -> Iterator[Case]:
    """Gray and colour of every common layout, type, byte order, compression and orientation, and what must be rejected."""
    compressions = (None, "deflate", "lzw", "packbits", "zstd")
    for order, compression, tiled in product("<>", compressions, (None, (16, 16))):
        how = {"byteorder": order, "compression": compression, "tile": tiled}
        for bits, white_is_zero in product((8, 16), (False, True)):
            gray = levels(picture(1)[..., 0], bits)
            stored = gray.max() - gray if white_is_zero else gray
            name = f"gray-{bits}-{white_is_zero}-{order}-{compression}-{tiled}"
            yield Case(name, tiff(stored, photometric="miniswhite" if white_is_zero else "minisblack", **how), to_8_bits(gray))
        for bits, planar, predictor in product((8, 16), ("contig", "separate"), (False, True)):
            if predictor and compression not in ("deflate", "lzw", "zstd"):
                continue
            rgb = levels(picture(3), bits)
            name = f"rgb-{bits}-{planar}-{predictor}-{order}-{compression}-{tiled}"
            yield Case(
                name, tiff(laid(rgb, planar), photometric="rgb", planarconfig=planar, predictor=predictor, **how), to_8_bits(rgb)
            )
        for bits, planar in product((8, 16), ("contig", "separate")):
            yield from with_alpha(bits, planar, how, f"{order}-{compression}-{tiled}")
            for channels, photometric in ((2, "minisblack"), (4, "rgb"), (5, "rgb"), (6, "rgb"), (3, "minisblack")):
                array = levels(picture(channels), bits)
                unnamed = ["unspecified"] * (channels - (3 if photometric == "rgb" else 1))
                data = tiff(laid(array, planar), photometric=photometric, planarconfig=planar, extrasamples=unnamed, **how)
                yield Case(f"unnamed-{channels}-{bits}-{planar}-{order}-{compression}-{tiled}", data, None)
        yield from signed(how, f"{order}-{compression}-{tiled}")
        yield from rarer(how, f"{order}-{compression}-{tiled}")
    for orientation, compression, kind, order in product(range(1, 9), (None, "deflate"), range(5), "<>"):
        array = (
            levels(picture(1)[..., 0], 8),
            levels(picture(1)[..., 0], 16),
            levels(picture(3), 8),
            levels(picture(3), 16),
            levels(picture(3), 8),
        )[kind]
        planar = "separate" if kind == 4 else "contig" if array.ndim == 3 else None
        data = tiff(
            laid(array, planar),
            orientation,
            photometric="rgb" if array.ndim == 3 else "minisblack",
            planarconfig=planar,
            compression=compression,
            byteorder=order,
        )
        yield Case(f"turned-{orientation}-{kind}-{compression}-{order}", data, UPRIGHT[orientation](to_8_bits(array)))
    for bits, order in product((1, 2, 4), "<>"):
        yield from few_bits(bits, order)


def arrays_on_pages() -> Iterator[Case]:
    """What tifffile, ImageJ and OME writers make of arrays: channels spread over pages, and stacks of pictures."""
    for kind, channels in product((np.uint8, np.uint16), (2, 5, 6)):
        array = levels(picture(channels), 8 * np.dtype(kind).itemsize)
        file = BytesIO()
        tifffile.imwrite(file, array)  # (H, W, C) without a word on its axes: H pages of W x C
        yield Case(f"slivers-{channels}-{kind.__name__}", file.getvalue(), None)
        planes = laid(array, "separate")
        for software, axes in product(("imagej", "ome"), ("CYX", "ZYX", "TYX")):
            file = BytesIO()
            tifffile.imwrite(file, planes, photometric="minisblack", metadata={"axes": axes}, **{software: True})
            expected = None if axes == "CYX" else to_8_bits(planes[0])
            yield Case(f"{software}-{axes}-{channels}-{kind.__name__}", file.getvalue(), expected)
        file = BytesIO()
        tifffile.imwrite(file, planes, photometric="minisblack")
        yield Case(f"stack-{channels}-{kind.__name__}", file.getvalue(), to_8_bits(planes[0]))


def laid(array: np.ndarray, planar: str | None) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(2, 0, 1)) if planar == "separate" else array


def with_alpha(bits: int, planar: str, how: dict[str, object], name: str) -> Iterator[Case]:
    for channels in (2, 4):
        array = levels(picture(channels), bits)
        small = to_8_bits(array)
        colour = small[..., 0] if channels == 2 else small[..., :3]
        options = {
            "photometric": "minisblack" if channels == 2 else "rgb",
            "planarconfig": planar,
            "extrasamples": ["unassalpha"],
        }
        yield Case(
            f"alpha-{channels}-{bits}-{planar}-{name}",
            tiff(laid(array, planar), **options, **how),
            over_white(colour, small[..., -1]),
            2,
        )


def signed(how: dict[str, object], name: str) -> Iterator[Case]:
    gray = levels(picture(1)[..., 0], 16)
    half = (gray // 2).astype(np.int16)
    yield Case(
        f"int8-{name}", tiff((gray // 256).astype(np.int16).__sub__(128).astype(np.int8), photometric="minisblack", **how), None
    )
    yield Case(f"int16-{name}", tiff(half, photometric="minisblack", **how), np.rint(half / 257).astype(np.uint8))
    yield Case(
        f"int16-negative-{name}", tiff((gray.astype(np.int32) - 32768).astype(np.int16), photometric="minisblack", **how), None
    )
    yield Case(f"int32-{name}", tiff(gray.astype(np.int32), photometric="minisblack", **how), to_8_bits(gray))
    yield Case(f"uint32-{name}", tiff(gray.astype(np.uint32), photometric="minisblack", **how), to_8_bits(gray))
    yield Case(f"int32-large-{name}", tiff(gray.astype(np.int32) * 1000, photometric="minisblack", **how), None)
    yield Case(f"float32-{name}", tiff(gray.astype(np.float32) / 65535, photometric="minisblack", **how), None)


def rarer(how: dict[str, object], name: str) -> Iterator[Case]:
    """Inks, palettes, premultiplied colour, differences of 16-bit gray, 12 bits."""
    for bits, planar in product((8, 16), ("contig", "separate")):
        inks = levels(picture(4), bits)
        rgb = np.asarray(Image.fromarray(to_8_bits(inks), "CMYK").convert("RGB"))
        yield Case(
            f"cmyk-{bits}-{planar}-{name}", tiff(laid(inks, planar), photometric="separated", planarconfig=planar, **how), rgb, 2
        )
        colour, alpha = picture(3), 0.2 + 0.8 * picture(1)
        array = levels(np.dstack([colour * alpha, alpha]), bits)
        expected = np.rint(255 * (colour * alpha + 1 - alpha)).astype(np.uint8)
        options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": ["assocalpha"]}
        yield Case(f"associated-{bits}-{planar}-{name}", tiff(laid(array, planar), **options, **how), expected, 6)
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    index = levels(picture(1)[..., 0], 8)
    yield Case(
        f"palette-{name}", tiff(index, photometric="palette", colormap=palette * 257, **how), palette.T[index].astype(np.uint8)
    )
    if how["compression"] in ("deflate", "lzw", "zstd"):
        gray = levels(picture(1)[..., 0], 16)
        yield Case(f"differences-16-{name}", tiff(gray, photometric="minisblack", predictor=True, **how), to_8_bits(gray))
        half = (gray // 2).astype(np.int16)
        expected = np.rint(half / 257).astype(np.uint8)
        yield Case(f"differences-int16-{name}", tiff(half, photometric="minisblack", predictor=True, **how), expected)
    twelve = levels(picture(1)[..., 0], 12)
    expected = np.rint(twelve / 257).astype(np.uint8)
    yield Case(f"12-in-16-{name}", tiff(twelve, photometric="minisblack", **how), expected)
    if how["tile"] is None and how["compression"] is None:
        yield Case(f"12-packed-{name}", tiff(twelve, photometric="minisblack", bitspersample=12, **how), expected)


def few_bits(bits: int, order: str) -> Iterator[Case]:
    """Hand-written: one strip of packed rows, as tifffile writes only one bit."""
    gray = levels(picture(1)[..., 0], bits)
    for white_is_zero in (0, 1):
        body = b"".join(pack((2**bits - 1) - row if white_is_zero else row, bits) for row in gray)
        tags = [
            (256, WIDTH),
            (257, HEIGHT),
            (258, bits),
            (259, 1),
            (262, 1 - white_is_zero),
            (273, 8),
            (277, 1),
            (278, HEIGHT),
            (279, len(body)),
        ]
        head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(body) + len(body) % 2)
        entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
        data = head + body + b"\0" * (len(body) % 2) + struct.pack(order + "H", len(tags)) + entries + b"\0" * 4
        yield Case(f"gray-{bits}-{white_is_zero}-{order}", data, scaled(gray, bits))


def pack(row: np.ndarray, bits: int) -> bytes:
    return np.packbits(((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)).tobytes()


def scaled(gray: np.ndarray, bits: int) -> np.ndarray:
    """Up to 8 bits: their full range is the full range."""
    return np.rint(gray * (255 / (2**bits - 1))).astype(np.uint8)


def jp2s() -> Iterator[Case]:
    for bits, channels, container, reversible in product((8, 10, 12, 16), (1, 2, 3, 4), ("jp2", "j2k"), (True, False)):
        array = levels(picture(channels), bits)
        array[:6, :10] = 2**bits - 1  # highlights
        small = array if bits == 8 else np.rint(array / 257).astype(np.uint8)
        raw = array[..., 0] if channels == 1 else array
        data = imagecodecs.jpeg2k_encode(
            raw, level=0 if reversible else 60, codecformat=container, reversible=reversible, bitspersample=bits
        )
        expected = small[..., 0] if channels == 1 else small if channels == 3 else None
        yield Case(f"jp2-{bits}-{channels}-{container}-{reversible}", data, expected, 1 if reversible else 6)
        if channels in (2, 4) and container == "jp2":
            alpha = small[..., -1]
            expected = over_white(small[..., 0] if channels == 2 else small[..., :3], alpha)
            yield Case(
                f"jp2-alpha-{bits}-{channels}-{reversible}", with_alpha_box(data, channels), expected, 2 if reversible else 8
            )
    for bits, channels, seed in product((9, 11, 13, 14), (1, 3), range(5)):
        array = np.random.default_rng(seed).integers(0, 2**bits, (HEIGHT, WIDTH, channels)).astype(np.uint16)
        raw = array[..., 0] if channels == 1 else array
        data = imagecodecs.jpeg2k_encode(raw, level=0, codecformat="jp2", reversible=True, bitspersample=bits)
        yield Case(f"jp2-noise-{bits}-{channels}-{seed}", data, np.rint(raw / 257).astype(np.uint8))


def with_alpha_box(data: bytes, channels: int) -> bytes:
    """The same JP2 file with a channel definition box that calls its last channel opacity."""
    entries = b"".join(struct.pack(">HHH", i, i == channels - 1, 0 if i == channels - 1 else i + 1) for i in range(channels))
    box = struct.pack(">I4sH", 10 + len(entries), b"cdef", channels) + entries
    at = data.index(b"jp2h") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    return data[:at] + struct.pack(">I", size + len(box)) + data[at + 4 : at + size] + box + data[at + size :]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(array: np.ndarray, bits: int, colour_type: int, key: bytes | None = None, palette: bytes | None = None) -> bytes:
    """A PNG by hand: any depth, colour type and colour key."""
    height, width = array.shape[:2]
    if bits < 8:
        rows = [pack(row, bits) for row in array]
    else:
        rows = [row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in array]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"tRNS", key)] if key is not None else []
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pngs() -> Iterator[Case]:
    for bits, seed in product((1, 2, 4, 8, 16), range(4)):
        gray = levels(picture(2)[..., seed % 2], bits)
        gray = np.roll(gray, seed, 1)
        small = to_8_bits(gray) if bits == 16 else scaled(gray, bits)
        yield Case(f"png-gray-{bits}-{seed}", png(gray, bits, 0), small)
        for number in sorted({0, 1, 2**bits - 1, 2 ** (bits - 1), int(gray[5, 7]), int(gray[20, 30])}):
            expected = np.where(gray == number, 255, small).astype(np.uint8)
            yield Case(f"png-gray-{bits}-{seed}-key-{number}", png(gray, bits, 0, struct.pack(">H", number)), expected)
    for bits, seed in product((8, 16), range(6)):
        rgb = np.roll(levels(picture(3), bits), seed, 1)
        small = to_8_bits(rgb)
        yield Case(f"png-rgb-{bits}-{seed}", png(rgb, bits, 2), small)
        key = rgb[4 + seed, 9]
        clear = (rgb == key).all(-1, keepdims=True)
        yield Case(
            f"png-rgb-{bits}-{seed}-key",
            png(rgb, bits, 2, struct.pack(">3H", *map(int, key))),
            np.where(clear, 255, small).astype(np.uint8),
        )
        near = key.astype(int) + np.array(
            [1 if key[0] < 2**bits - 1 else -1, 0, 0]
        )  # not in the picture, but with equal upper bytes
        clear = (rgb == near).all(-1, keepdims=True)
        yield Case(
            f"png-rgb-{bits}-{seed}-near",
            png(rgb, bits, 2, struct.pack(">3H", *map(int, near))),
            np.where(clear, 255, small).astype(np.uint8),
        )
        for channels, kind in ((2, 4), (4, 6)):
            array = np.roll(levels(picture(channels), bits), seed, 0)
            small = to_8_bits(array)
            colour = small[..., 0] if channels == 2 else small[..., :3]
            yield Case(f"png-alpha-{bits}-{channels}-{seed}", png(array, bits, kind), over_white(colour, small[..., -1]), 2)
    for bits, seed in product((1, 2, 4, 8), range(4)):
        index = np.roll(levels(picture(1)[..., 0], bits), seed, 1)
        palette = np.random.default_rng(seed).integers(0, 256, (2**bits, 3)).astype(np.uint8)
        yield Case(f"png-palette-{bits}-{seed}", png(index, bits, 3, palette=palette.tobytes()), palette[index])
        alpha = np.random.default_rng(seed + 9).integers(0, 256, 2**bits).astype(np.uint8)
        yield Case(
            f"png-palette-alpha-{bits}-{seed}",
            png(index, bits, 3, alpha.tobytes(), palette.tobytes()),
            over_white(palette[index], alpha[index]),
            2,
        )


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


def jpegs() -> Iterator[Case]:
    """Smooth pictures at high quality: within 12 levels, where a turn, a swap of channels or an inversion is 50 or more away."""
    for orientation, channels, sampling, progressive, (height, width) in product(
        range(1, 9), (1, 3), ("4:4:4", "4:2:2", "4:2:0"), (False, True), ((24, 40), (33, 17), (64, 48), (97, 120), (16, 80))
    ):
        array = levels(picture(channels, height, width), 8)
        file = BytesIO()
        options = {"subsampling": sampling} if channels == 3 else {}
        Image.fromarray(array if channels == 3 else array[..., 0]).save(
            file, "JPEG", quality=97, progressive=progressive, exif=exif(orientation), **options
        )
        plain = array if channels == 3 else array[..., 0]
        yield Case(
            f"jpeg-{orientation}-{channels}-{sampling}-{progressive}-{height}", file.getvalue(), UPRIGHT[orientation](plain), 40
        )
    for orientation in range(1, 9):
        cmyk = Image.fromarray(levels(picture(3), 8)).convert("CMYK")
        file = BytesIO()
        cmyk.save(file, "JPEG", quality=97, subsampling=0, exif=exif(orientation))
        yield Case(f"jpeg-cmyk-{orientation}", file.getvalue(), UPRIGHT[orientation](np.asarray(cmyk.convert("RGB"))), 40)


def others() -> Iterator[Case]:
    """Every other format that has an orientation, and those of more than 8 bits."""
    for orientation in range(1, 9):
        array = levels(picture(3), 8)
        for name, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"})):
            file = BytesIO()
            Image.fromarray(array).save(file, name, exif=exif(orientation), **options)
            yield Case(f"{name}-{orientation}", file.getvalue(), UPRIGHT[orientation](array), 8 if name == "AVIF" else 1)
    for bits in (4, 8, 10, 12, 16):
        top = 2**bits - 1
        gray = levels(picture(1)[..., 0], bits)
        small = scaled(gray, bits) if bits <= 8 else np.rint(gray / 257).astype(np.uint8)
        kind = ">u2" if bits > 8 else np.uint8
        yield Case(f"pgm-{bits}", b"P5\n%d %d\n%d\n" % (WIDTH, HEIGHT, top) + gray.astype(kind).tobytes(), small)
        rgb = levels(picture(3), bits)
        small = scaled(rgb, bits) if bits <= 8 else np.rint(rgb / 257).astype(np.uint8)
        yield Case(f"ppm-{bits}", b"P6\n%d %d\n%d\n" % (WIDTH, HEIGHT, top) + rgb.astype(kind).tobytes(), small)
