"""Pictures of every encoding are stored as the arrays they were made of, or rejected: never as something else."""

import sys

import numpy as np
import pytest

from amdim.shards.images.encode import store
from amdim.shards.sources.base import Encoding, Rejected
from tests.shards import codec_matrix
from tests.shards.codec_matrix import Case, levels, picture, tiff

KEEP_SIZE = Encoding(size=0, quality=90)


def fault(case: Case) -> str:
    """What is wrong with what was stored; nothing if it is right or was rejected."""
    try:
        stored = store(case.data, KEEP_SIZE)
    except Rejected:
        return ""
    if case.expected is None:
        return "was stored"
    pixels = np.asarray(stored.pixels)
    expected = case.expected if case.expected.ndim == pixels.ndim else np.repeat(case.expected[..., None], 3, 2)
    if pixels.shape != expected.shape or (stored.height, stored.width) != expected.shape[:2]:
        return f"has the shape {pixels.shape}, recorded as {stored.width} x {stored.height}"
    off = abs(pixels.astype(int) - expected).max()
    return f"is {off} levels off" if off > case.tolerance else ""


@pytest.mark.parametrize(
    ("cases", "least", "stored"),
    [
        (codec_matrix.tiffs, 1300, 750),
        (codec_matrix.arrays_on_pages, 48, 30),
        (codec_matrix.jp2s, 100, 80),
        (codec_matrix.pngs, 200, 190),
        (codec_matrix.jpegs, 480, 480),
        (codec_matrix.others, 34, 34),
    ],
)
def test_pictures_are_stored_right_or_rejected(cases, least, stored):
    """``stored`` of them at least, so that no rule rejects what was read before."""
    every = list(cases())
    assert len(every) >= least
    faults = [f"{case.name} {found}" for case in every if (found := fault(case))]
    assert not faults, f"{len(faults)}: {faults[:20]}"
    assert sum(not rejection(case.data) for case in every) >= stored


def rejection(data: bytes) -> str:
    try:
        store(data, KEEP_SIZE)
    except Rejected as error:
        return str(error)
    return ""


def test_without_the_second_decoder_it_is_named(monkeypatch):
    planes = np.ascontiguousarray(levels(picture(3), 16).transpose(2, 0, 1))
    tiff16 = tiff(planes, photometric="rgb", planarconfig="separate")
    (jp2,) = (case.data for case in codec_matrix.jp2s() if case.name == "jp2-16-3-jp2-True")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert rejection(tiff16) == "Pillow decodes it wrongly; `pip install tifffile imagecodecs`, and it is read"
    assert rejection(jp2) == "3 channels of 16 bits; Pillow decodes it wrongly; `pip install imagecodecs`, and it is read"


def test_what_is_rejected_says_what_it_is():
    array = levels(picture(5), 8)
    assert rejection(tiff(array, photometric="rgb", extrasamples=["unspecified"] * 2)) == (
        "5 channels, of which the file names 3: split them into files, or save three as RGB"
    )
    assert rejection(tiff(array[..., 0].view(np.int8), photometric="minisblack")).startswith("signed pixels: ")
    assert rejection(tiff(array[..., 0], photometric="minisblack", subfiletype=1)).startswith("its first page is a reduced copy")
    (slivers,) = (case.data for case in codec_matrix.arrays_on_pages() if case.name == "slivers-5-uint8")
    assert rejection(slivers).startswith("24 pages of 5 x 40 pixels, which look like an array (rows, columns, channels)")
