"""Class names on pictures: in a font that has their letters, and short enough."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import ImageFont


def letter(name: str, number: int, size: int, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """What to write for a class and the font to write it in, ``size`` pixels high and at most ``width`` wide.

    What is longer loses its middle. Where no font of this machine has all the letters of the name, that is its number.
    """
    found = next((path for path in _fonts() if _letters(path).issuperset(map(ord, name))), None)
    text, font = (name if found else f"class {number}"), ImageFont.truetype(found or _fonts()[0], size)
    shown, kept = text, len(text)
    while font.getlength(shown) > width and kept:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown, font


@cache
def _fonts() -> list[str]:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek, Cyrillic and more, and then what the machine has."""
    import matplotlib as mpl
    from matplotlib.font_manager import findSystemFonts

    own = Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return [str(own), *sorted(findSystemFonts())]


@cache
def _letters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (RuntimeError, OSError):  # a font of a kind FreeType does not read
        return frozenset()
