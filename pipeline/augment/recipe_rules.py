"""What each field of a recipe may be, said so that an error can quote it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from amdim.pipeline.augment.recipes import Recipe


class Rule(NamedTuple):
    """``allowed`` completes "must be"; ``convert`` takes what TOML or JSON gives to what ``Recipe`` holds."""

    allowed: str
    holds: Callable[[Any], bool]
    convert: Callable[[Any], Any]


def is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high


def are_numbers(value: Any, count: int, low: float, high: float) -> bool:
    return isinstance(value, list) and len(value) == count and all(is_number(each, low, high) for each in value)


def number(low: float, high: float) -> Rule:
    return Rule(f"a number from {low:g} to {high:g}", lambda value: is_number(value, low, high), float)


def whole(low: int, high: int) -> Rule:
    allowed = f"a whole number from {low} to {high}"
    return Rule(allowed, lambda value: isinstance(value, int) and is_number(value, low, high), int)


def one_of(*values: Any) -> Rule:
    words = ", ".join(repr(value) for value in values)
    return Rule(f"one of {words}", lambda value: type(value) is type(values[0]) and value in values, lambda value: value)


def interval(low: float, high: float) -> Rule:
    allowed = f"two numbers, [least, most], from {low:g} to {high:g}"
    return Rule(allowed, lambda value: are_numbers(value, 2, low, high) and value[0] <= value[1], numbers)


def channels(low: float, high: float) -> Rule:
    allowed = f"a number from {low:g} to {high:g}, or three of them, [red, green, blue]"
    return Rule(allowed, lambda value: is_number(value, low, high) or are_numbers(value, 3, low, high), per_channel)


def numbers(values: list[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def per_channel(value: Any) -> tuple[float, ...]:
    return numbers(value) if isinstance(value, list) else (float(value),) * 3


PROBABILITY = number(0, 1)

RULES = {
    "size": one_of(32, 64, 128),  # sides that there are encoders for
    "resize": whole(32, 4096),
    "mean": channels(0, 1),
    "std": channels(0.001, 1),
    "crop": one_of("resized", "shift"),
    "area": interval(0.01, 1),
    "aspect": interval(0.1, 10),
    "shift": whole(0, 32),
    "shift_p": PROBABILITY,
    "flip": PROBABILITY,
    "flip_vertical": PROBABILITY,
    "transpose": PROBABILITY,
    "brightness": number(0, 4),
    "contrast": number(0, 4),
    "saturation": number(0, 4),
    "hue": number(0, 0.5),
    "jitter_p": PROBABILITY,
    "gray_p": PROBABILITY,
    "policy": one_of("none", "fast-autoaugment"),
    "lighting": number(0, 1),
    "color": one_of("exact", "fused"),
}

# Fields that only one kind of crop reads.
READ_BY = {"area": "resized", "aspect": "resized", "shift": "shift", "shift_p": "shift"}


def disagreement(recipe: Recipe, given: set[str]) -> str | None:
    """What fields say against each other, if anything; ``given`` are those that were written down."""
    if recipe.resize < recipe.size:
        return f"resize = {recipe.resize} must be at least size, {recipe.size}: its centre is what evaluation sees"
    if not given >= READ_BY.keys():  # a run's own record has all of them, whatever fields are younger than it
        for name, crop in READ_BY.items():
            if name in given and recipe.crop != crop:
                return f"{name} is for crop = {crop!r}, and crop is {recipe.crop!r}; leave out {name}, or set crop"
    return None
