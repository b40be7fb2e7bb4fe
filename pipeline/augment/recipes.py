"""What one view is, as data. The paper's recipes are those of amdim-public's datasets.py; resampling is antialiased bicubic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Recipe:
    """One view of an image.

    Args:
        size: side S of a view in pixels.
        resize: at evaluation, the shorter side the image would be resized to before its centre S x S is taken.
        mean, std: normalisation of pixels in 0..1.
        crop: "resized" takes a random box (``area`` of the image, ``aspect`` width / height) and resizes it to S x S; "shift"
            moves the image by up to ``shift`` pixels with probability ``shift_p``, reflecting it at the border.
        flip, flip_vertical, transpose: probabilities of mirroring left and right, top and bottom, and of swapping rows and
            columns; drawn once per image and shared by both views. All three at .5 are the eight symmetries of a square.
        brightness, contrast, saturation: factors are uniform in [1 - x, 1 + x]; hue: turns, uniform in [-x, x].
        jitter_p: probability of the four together, in random order; gray_p: of becoming gray after it.
        policy: "fast-autoaugment" does two operations drawn from its policy for ImageNet to a view before its jitter.
        lighting: standard deviation of PCA lighting, in standard deviations of ImageNet's colours.
        color: "exact" does them one by one as Pillow would; "fused" all at once, in half the time or less, to the probe's
            cost (docs/views.md).
    """

    size: int = 128
    resize: int = 146
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    crop: Literal["resized", "shift"] = "resized"
    area: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.7, 1.4)
    shift: int = 0
    shift_p: float = 0.8
    flip: float = 0.5
    flip_vertical: float = 0.0
    transpose: float = 0.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_p: float = 0.8
    gray_p: float = 0.25
    policy: Literal["none", "fast-autoaugment"] = "none"
    lighting: float = 0.0
    color: Literal["exact", "fused"] = "exact"

    def centred(self) -> Recipe:
        """The recipe of evaluation: the same size and statistics, the centre of the image, nothing random."""
        still = dict.fromkeys(("flip", "flip_vertical", "transpose", "jitter_p", "gray_p", "lighting"), 0.0)
        return replace(self, crop="resized", area=(1.0, 1.0), policy="none", **still)  # type: ignore[arg-type]


def normalisation(recipe: Recipe) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Offset and scale of each channel, from levels 0..255."""
    pairs = list(zip(recipe.mean, recipe.std, strict=True))
    return tuple(-mean / std for mean, std in pairs), tuple(1 / (255 * std) for _, std in pairs)


IMAGENET128 = Recipe()
# The author's for his best encoders (github.com/Philip-Bachman/amdim-public, issue 5).
STRONG128 = replace(IMAGENET128, area=(0.2, 0.9), jitter_p=1.0, policy="fast-autoaugment", lighting=0.1)
STL64 = replace(IMAGENET128, size=64, resize=70, hue=0.2, mean=(0.43, 0.42, 0.39), std=(0.27, 0.26, 0.27))
CIFAR32 = replace(
    STL64,
    size=32,
    resize=32,
    crop="shift",
    shift=4,
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
)
# Boxes of at least half the image, here and for shapes, so that most hold most of the object.
# Gray images: saturation, hue and graying would do nothing. Statistics are fashion-mnist's training split's.
GRAY32 = Recipe(size=32, resize=32, area=(0.5, 1.0), mean=(0.286,) * 3, std=(0.353,) * 3, saturation=0.0, hue=0.0, gray_p=0.0)
# Statistics are the training split's.
SHAPES64 = replace(STL64, resize=64, area=(0.5, 1.0), mean=(0.57, 0.58, 0.56), std=(0.31, 0.24, 0.22))
SHAPES32 = replace(SHAPES64, size=32, resize=32)
SHAPES32_FUSED = replace(SHAPES32, color="fused")  # with which mixture features find the objects: docs/mixtures.md

RECIPES = {
    "imagenet128": IMAGENET128,
    "strong128": STRONG128,
    "stl64": STL64,
    "cifar32": CIFAR32,
    "gray32": GRAY32,
    "shapes64": SHAPES64,
    "shapes32": SHAPES32,
    "shapes32-fused": SHAPES32_FUSED,
}


# What a data set is looked at with where no preset says so; photographs take imagenet128.
BY_DATA = {"shapes": "shapes32", "fashion-mnist": "gray32", "cifar10": "cifar32", "cifar100": "cifar32", "stl10": "stl64"}
