"""Line charts as inline SVG, in the page's own colours, so that they are sharp at any size and readable in the dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 36
POINTS = 400  # of a line at most; of longer ones the least and the greatest value of half as many stretches


class Line(NamedTuple):
    """What one line shows; ``name`` goes to the legend, with its last value."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Chart(NamedTuple):
    """An SVG picture, and its legend: a name and a last value for each line, in the order of the page's colours."""

    title: str
    svg: str
    legend: list[tuple[str, str]]
    caption: str


def chart(title: str, lines: list[Line], x: str, y: str, caption: str, zero: bool = False) -> Chart:
    """
    Args:
        title: what is shown.
        lines: those without finite points are left out.
        x, y: titles of the axes, with units.
        caption: what to look for.
        zero: whether the vertical axis begins at zero.
    """
    lines = [thinned(line) for line in lines if any(map(math.isfinite, line.y))]
    span_x = spanned([value for line in lines for value in line.x], exact=True)
    span_y = spanned([value for line in lines for value in line.y], zero)
    parts = [*axes(span_x, span_y, x, y), *(curve(number, line, span_x, span_y) for number, line in enumerate(lines))]
    last = "; ".join(f"{line.name} ends at {digits(line.y[-1])}" for line in lines)
    label = escape(f"{title}: {y} against {x}. {last}.", quote=True)
    # The script reads values off the lines by these: the least and the greatest, and where they are.
    horizontal = f"{span_x[0]:g} {span_x[1]:g} {LEFT} {WIDTH - RIGHT}"
    vertical = f"{span_y[0]:g} {span_y[1]:g} {HEIGHT - BOTTOM} {TOP}"
    spans = f'data-x="{horizontal}" data-y="{vertical}"'
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{label}" {spans}>{"".join(parts)}</svg>'
    return Chart(title, svg, [(line.name, digits(line.y[-1])) for line in lines], caption)


def thinned(line: Line) -> Line:
    """At most POINTS points and the last: what sticks out stays, and every point is one that was logged."""
    if len(line.x) <= POINTS:
        return line
    kept = {len(line.y) - 1}
    for part in np.array_split(np.arange(len(line.y)), POINTS // 2):
        values = np.asarray(line.y, float)[part]
        if np.isfinite(values).any():
            kept |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
    chosen = sorted(kept)
    return Line(line.name, [line.x[n] for n in chosen], [line.y[n] for n in chosen])


def digits(value: float) -> str:
    """Three of them, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spanned(values: list[float], zero: bool = False, exact: bool = False) -> tuple[float, float]:
    """From the least (or zero) to the greatest finite value, with some air, so that no line runs along an edge."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min([0.0, *finite] if zero else finite), max(finite)
    if high == low:
        return low - (0 if zero else 0.5), high + 0.5
    air = 0.04 * (high - low) * (not exact)
    return low - (0 if zero else air), high + air


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers inside a span, 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def place(value: float, span: tuple[float, float], first: float, last: float) -> float:
    return first + (value - span[0]) / (span[1] - span[0]) * (last - first)


def axes(span_x: tuple[float, float], span_y: tuple[float, float], x: str, y: str) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in ticks(*span_y):
        at = place(value, span_y, bottom, TOP)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in ticks(*span_x, count=4):
        at = place(value, span_x, LEFT, right)
        parts.append(f'<text x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{short(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 4}" text-anchor="end">{escape(x)}</text>')
    middle = (TOP + bottom) / 2
    parts.append(f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">{escape(y)}</text>')
    return parts


def short(value: float) -> str:
    """``12k`` for 12,000: room is scarce."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:,.6g}"


def curve(number: int, line: Line, span_x: tuple[float, float], span_y: tuple[float, float]) -> str:
    """A line, broken where a value is missing or not finite; single points are dots."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    words, pen = [], "M"
    for x, y in zip(line.x, line.y, strict=True):
        if not math.isfinite(y):
            pen = "M"
            continue
        words.append(f"{pen}{place(x, span_x, LEFT, right):.1f} {place(y, span_y, bottom, TOP):.1f}")
        pen = "L"
    # A round cap makes a visible dot of a path that goes nowhere.
    return f'<path class="line c{number % 10}" d="{"".join(words)}{"h0" if len(words) == 1 else ""}"/>'
