"""How a picture has to be turned to stand upright, by the number that EXIF and TIFF have for it."""

from __future__ import annotations

from PIL import ExifTags, Image

TURN = Image.Transpose
TURNS = {
    **{2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM},
    **{5: TURN.TRANSPOSE, 6: TURN.ROTATE_270, 7: TURN.TRANSVERSE, 8: TURN.ROTATE_90},
}
ON_ITS_SIDE = 5  # and what is above


def orientation(image: Image.Image) -> int:
    """Return 1 to 8: what is still to be done to the pixels that Pillow loads, which turns TIFFs itself and no other format.

    A damaged tag means 1, which is how other programs show such a file.
    """
    if image.format == "TIFF":
        return 1
    try:
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever the damage made the reader raise
        return 1
    return turn if turn in TURNS else 1


def upright(image: Image.Image, turn: int) -> Image.Image:
    """Return the image turned as ``turn`` says; as it is for 1 and for numbers that mean nothing."""
    return image.transpose(TURNS[turn]) if turn in TURNS else image
