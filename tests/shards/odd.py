"""Makes every odd and hostile image file that a folder of one's own may hold: bytes by name, and what becomes of each."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, features


def picture(width=300, height=280, mode="RGB", seed=0) -> Image.Image:
    """Smooth, so that it survives JPEG, with some grain, so that its file is not tiny."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grainy = np.asarray(coarse) + rng.normal(0, 3, (height, width, 3))
    return Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def garbled(data: bytes, seed: int, length: int = 64) -> bytes:
    """Noise within the scan of a JPEG, free of markers."""
    rng = np.random.default_rng(seed)
    start = data.index(b"\xff\xda") + 14
    at = int(rng.integers(start, len(data) - length - 2))
    return data[:at] + rng.integers(0, 255, length, np.uint8).tobytes() + data[at + length :]


def ycck(image: Image.Image) -> bytes:
    """A four-channel JPEG as Photoshop writes it: Pillow writes CMYK only, so its channels and its marker are set by hand."""
    planes = list(image.convert("CMYK").split())
    ycc = Image.merge("RGB", planes[:3]).convert("YCbCr").split()
    inverted = [Image.fromarray(255 - np.asarray(plane)) for plane in ycc]
    data = encoded(Image.merge("CMYK", [*inverted, planes[3]]), "JPEG", quality=95)
    marker = data.index(b"Adobe") + 11
    return data[:marker] + b"\x02" + data[marker + 1 :]


def deep(kind: str, **options) -> bytes:
    """16-bit gray, from black to white."""
    ramp = np.linspace(0, 65535, 300 * 280).round().reshape(280, 300)
    return encoded(Image.fromarray(ramp.astype(options.pop("dtype", np.uint16))), kind, **options)


def two_channels(side: int = 9) -> bytes:
    """A 16-bit TIFF of two channels, which microscopes write and Pillow does not read."""
    tags = {256: side, 257: side, 258: 16, 259: 1, 262: 1, 273: 8 + 2 + 12 * 9 + 4, 277: 2, 278: side, 279: 4 * side**2}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + bytes(4 * side**2)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def black_png(side: int) -> bytes:
    """A 1-bit PNG, made row by row: 60,000 pixels a side take 437 KB, and 450 MB once unpacked."""
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    scan = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", scan) + chunk(b"IEND", b"")


def with_wrong_checksum(data: bytes) -> bytes:
    """A PNG whose pixels are good and whose IDAT checksum is not."""
    at = data.index(b"IEND") - 5
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


JPEG, PNG = encoded(picture(), "JPEG"), encoded(picture(), "PNG")
FRAMES = [picture(seed=seed) for seed in range(3)]

BAD = {
    **{f"cut at {percent}.jpg": (JPEG[: len(JPEG) * percent // 100], "damaged") for percent in (30, 50, 70, 90, 99)},
    "no end marker.jpg": (JPEG[:-2], "damaged"),
    **{f"garbage {seed}.jpg": (garbled(JPEG, seed), "damaged") for seed in range(5)},
    "nothing.jpg": (b"", "zero bytes"),
    "text.jpg": (b"this is no image\n" * 50, "not an image"),
    "error.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not an image"),
    "cut.png": (PNG[:-2000], "damaged"),
    "checksum.png": (with_wrong_checksum(PNG), "damaged"),
    "cut.webp": (encoded(picture(), "WEBP")[:-300], "damaged"),
    "cut.gif": (encoded(picture().quantize(), "GIF")[:2000], "damaged"),
    "cut.tif": (encoded(picture(), "TIFF")[:2000], "damaged"),
    "float.tif": (deep("TIFF", dtype=np.float32), "floating-point pixels"),
    "32 bit.tif": (encoded(Image.fromarray(np.full((9, 9), 70_000, np.int32)), "TIFF"), "pixels of more than 16 bits"),
    "negative.tif": (encoded(Image.fromarray(np.full((9, 9), -5, np.int32)), "TIFF"), "negative pixels"),
    "two channels.tif": (two_channels(), "a damaged TIFF, or one of channels or numbers that are not read"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "long.png": (encoded(Image.new("1", (70_000, 2)), "PNG"), "too large"),
    "wide.png": (black_png(12_000), "too large"),
}

KEPT = {
    "plain.jpg": (JPEG, "jpg"),
    "PNG named.jpeg": (PNG, "png"),
    "JPEG named.png": (JPEG, "jpg"),
    "profile.jpg": (encoded(picture(), "JPEG", icc_profile=b"x" * 500), "jpg"),
    "padded.jpg": (JPEG[:-2] + bytes(40) + JPEG[-2:], "jpg"),
    "dot.png": (encoded(picture(1, 1), "PNG"), "png"),
    "line.png": (encoded(picture(1, 10_000), "PNG"), "png"),
    "row.jpg": (encoded(picture(10_000, 1), "JPEG"), "jpg"),
}

CHANGED = {
    "cmyk.jpg": (encoded(picture(mode="CMYK"), "JPEG", quality=95), picture()),
    "ycck.jpg": (ycck(picture()), picture()),
    "deep.png": (deep("PNG"), None),
    "deep.tif": (deep("TIFF"), None),
    "deep big-endian.tif": (deep("TIFF", dtype=">u2"), None),
    "animated.gif": (encoded(FRAMES[0].quantize(), "GIF", save_all=True, append_images=FRAMES[1:]), FRAMES[0]),
    "animated.webp": (encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), FRAMES[0]),
    "plain.bmp": (encoded(picture(), "BMP"), picture()),
    "comment.gif": (encoded(picture().quantize(), "GIF", comment=b"secret"), picture()),
    **({"plain.avif": (encoded(picture(), "AVIF", quality=95), picture())} if features.check("avif") else {}),
}
