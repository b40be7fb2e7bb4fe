"""The built-in set: 64×64 pictures of ten outlines, made on the spot.

One object a picture, in any place, size, rotation, colour, texture and light, before a cluttered background. Textures and
colours come from small palettes and are drawn without regard to the class, so that nothing but the outline tells it
and little but the outline tells two pictures apart. ``draw`` is a pure function of (seed, split, index).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from amdim.shards.shapes.distractors import FRAGMENTS
from amdim.shards.shapes.sdf import OUTLINES, Field
from amdim.shards.shapes.textures import CELLS, TEXTURES, soft
from amdim.shards.sources.base import Raw, Sample, Source

# What the pictures are like; retune here.
SIDE = 64
COUNTS = {"train": 20_000, "val": 4_000}
PALETTE = ((38, 70, 83), (42, 157, 143), (233, 196, 106), (231, 111, 81), (244, 236, 219), (112, 88, 124), (130, 188, 219))
MIN_CONTRAST = 60  # between the luminances (0 to 255) of object and background
RADIUS = (0.24, 0.36)  # of the enclosing circle, as a fraction of the side
PERIOD = (5.0, 12.0)  # pixels, of textures
OBJECT_TONE, BACKGROUND_TONE = 0.30, 0.22  # how far a texture's second tone goes to white or black
FRAGMENT_COUNT = (4, 9)
FRAGMENT_SIZE = (2.5, 5.0)  # pixels, half-length
LIGHT = (0.05, 0.25)  # brightness gained and lost at the sides of the picture
SHADOW_REACH, SHADOW_SOFTNESS, SHADOW_DEPTH = 2.5, 3.0, 0.45  # pixels, pixels, fraction of the light lost
NOISE = (2.0, 6.0)  # half-width, in levels, of the triangular noise

CLASSES = tuple(OUTLINES)
SPLITS = tuple(COUNTS)
LUMINANCE = tuple(0.299 * r + 0.587 * g + 0.114 * b for r, g, b in PALETTE)
PAIRS = tuple(
    (front, back)
    for front in range(len(PALETTE))
    for back in range(len(PALETTE))
    if abs(LUMINANCE[front] - LUMINANCE[back]) >= MIN_CONTRAST
)
GRID_Y, GRID_X = np.mgrid[:SIDE, :SIDE].astype(np.float32) + 0.5


@dataclass(frozen=True)
class Fill:
    """A textured colour: indices into PALETTE and TEXTURES, second tone (-1 to black, 1 to white), layout of the pattern."""

    colour: int
    texture: int
    tone: int
    angle: float
    period: float
    shift: float


@dataclass(frozen=True)
class Fragment:
    """A piece of clutter: index into FRAGMENTS, place and half-length in pixels, angle in radians, colour."""

    kind: int
    x: float
    y: float
    size: float
    angle: float
    colour: int


@dataclass(frozen=True)
class ShapeParams:
    """All there is to know about a picture: lengths in pixels, angles in radians, colours as indices into PALETTE."""

    label: int
    x: float
    y: float
    radius: float
    angle: float
    front: Fill
    back: Fill
    fragments: tuple[Fragment, ...]
    light_angle: float
    light: float
    noise: float
    noise_seed: int


def source(seed: int, counts: dict[str, int] | None = None) -> Source:
    """The set of ``seed``; ``counts`` gives other numbers of pictures a split."""
    splits = {
        split: [Sample(f"{split}/{index}", index % len(CLASSES)) for index in range(count)]
        for split, count in (counts or COUNTS).items()
    }
    return Source("shapes", CLASSES, splits, partial(_read, seed))


def draw(seed: int, split: str, index: int) -> ShapeParams:
    """The parameters of one picture. The class goes round with the index, and no drawn number depends on it."""
    rng = np.random.Generator(np.random.Philox(key=[seed, SPLITS.index(split) << 32 | index]))
    front, back = PAIRS[rng.integers(len(PAIRS))]
    radius = SIDE * rng.uniform(*RADIUS)
    x, y = rng.uniform(radius, SIDE - radius, 2).tolist()
    return ShapeParams(
        label=index % len(CLASSES),
        x=x,
        y=y,
        radius=radius,
        angle=_angle(rng),
        front=_draw_fill(rng, front),
        back=_draw_fill(rng, back),
        fragments=tuple(_draw_fragment(rng, front) for _ in range(rng.integers(*FRAGMENT_COUNT, endpoint=True))),
        light_angle=_angle(rng),
        light=rng.uniform(*LIGHT),
        noise=rng.uniform(*NOISE),
        noise_seed=int(rng.integers(2**63)),
    )


def render(params: ShapeParams) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture, uint8 (SIDE, SIDE, 3), and the object's mask, uint8 (SIDE, SIDE) of 0 and 255."""
    rng = np.random.Generator(np.random.Philox(key=[params.noise_seed, 0]))
    picture = _paint(params.back, BACKGROUND_TONE, rng)
    for fragment in params.fragments:
        _lay(picture, soft(-_fragment_distance(fragment)), np.array(PALETTE[fragment.colour], np.float32))
    light_x, light_y = math.cos(params.light_angle), math.sin(params.light_angle)
    shadow = _distance(params, params.x - SHADOW_REACH * light_x, params.y - SHADOW_REACH * light_y)
    picture *= 1 - SHADOW_DEPTH * np.clip(0.5 - shadow / (2 * SHADOW_SOFTNESS), 0, 1)[..., None]
    cover = soft(-_distance(params, params.x, params.y))
    _lay(picture, cover, _paint(params.front, OBJECT_TONE, rng))
    ramp = ((GRID_X - SIDE / 2) * light_x + (GRID_Y - SIDE / 2) * light_y) / (SIDE / 2)
    picture *= 1 + params.light * ramp[..., None]
    picture += params.noise * (rng.random(picture.shape, np.float32) - rng.random(picture.shape, np.float32))
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8), np.where(cover >= 0.5, 255, 0).astype(np.uint8)


def _read(seed: int, sample: Sample) -> Raw:
    split, _, index = sample.path.partition("/")
    return Raw(*render(draw(seed, split, int(index))))


def _angle(rng: np.random.Generator) -> float:
    return rng.uniform(0, 2 * math.pi)


def _draw_fill(rng: np.random.Generator, colour: int) -> Fill:
    texture, tone = int(rng.integers(len(TEXTURES))), int(rng.choice([-1, 1]))
    period = rng.uniform(*PERIOD)
    return Fill(colour, texture, tone, _angle(rng), period, rng.uniform(0, period))


def _draw_fragment(rng: np.random.Generator, front: int) -> Fragment:
    """Never in the object's own colour, which would blur its outline."""
    colour = (front + 1 + int(rng.integers(len(PALETTE) - 1))) % len(PALETTE)
    x, y = rng.uniform(0, SIDE, 2).tolist()
    return Fragment(int(rng.integers(len(FRAGMENTS))), x, y, rng.uniform(*FRAGMENT_SIZE), _angle(rng), colour)


def _turned(x: float, y: float, angle: float) -> tuple[Field, Field]:
    """Coordinates of the pixels in a frame at (x, y) turned by ``angle``."""
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = GRID_X - x, GRID_Y - y
    return dx * cos + dy * sin, dy * cos - dx * sin


def _distance(params: ShapeParams, x: float, y: float) -> Field:
    """Signed distance in pixels to the object, were it at (x, y)."""
    u, v = _turned(x, y, params.angle)
    radius = params.radius
    return OUTLINES[CLASSES[params.label]](u / radius, v / radius) * radius


def _fragment_distance(fragment: Fragment) -> Field:
    u, v = _turned(fragment.x, fragment.y, fragment.angle)
    return FRAGMENTS[fragment.kind](u, v, fragment.size)


def _paint(fill: Fill, strength: float, rng: np.random.Generator) -> Field:
    """(SIDE, SIDE, 3): a colour and its second tone, mixed by a texture."""
    first = np.array(PALETTE[fill.colour], np.float32)
    second = first + strength * ((255 if fill.tone > 0 else 0) - first)
    u, v = _turned(SIDE / 2 + fill.shift, SIDE / 2, fill.angle)
    lattice = rng.random((CELLS, CELLS), np.float32)
    share = TEXTURES[fill.texture](u, v, fill.period, lattice)[..., None]
    return first + share * (second - first)


def _lay(picture: Field, cover: Field, colour: Field) -> None:
    """Lays ``colour`` over the picture, in place, where ``cover`` is 1."""
    picture += cover[..., None] * (colour - picture)
