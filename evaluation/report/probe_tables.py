"""What probes found, as tables: accuracies beside their baselines, classes, and which are taken for which."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np

from amdim.evaluation.report.pictures import Picture, picture
from amdim.evaluation.run_record import NAMES, top1, way

SMALL = 12  # classes up to which the whole confusion is a table
MATRIX = 600  # pixels of the confusion of more
PAIRS = 10  # confusions that are listed
ENDS = 6  # best and worst classes that are listed where there are many
BESIDE = {"top1": "this encoder", "top1_random_init": "untrained", "top1_raw_pixels": "raw pixels"}
FEW = {"fractions": "", "fractions_random_init": "untrained, ", "fractions_raw_pixels": "raw pixels, "}

Result = dict[str, Any]


class Bar(NamedTuple):
    """A share of 1, in words too, and the ends of its interval where they are known."""

    name: str
    share: float
    text: str
    interval: tuple[float, float] | None = None


class Probe(NamedTuple):
    """One probe's results. ``note`` says on what, and whether they are of other weights than the report."""

    name: str
    bars: list[Bar]
    note: str


class Cell(NamedTuple):
    """Images of a class taken for another: how many, and their share of the class."""

    images: int
    share: float


class Confusion(NamedTuple):
    """The most frequent ``pairs``, and a row a true class: a ``table``, or a ``matrix`` of pixels where there are many classes.

    Of very many there are the pairs alone.
    """

    probe: str
    classes: list[str]
    table: list[list[Cell]] | None
    matrix: Picture | None
    pairs: list[tuple[str, str, Cell]]
    note: str


class PerClass(NamedTuple):
    """The probe, accuracies of the classes from the best to the worst, which classes, and on what."""

    probe: str
    bars: list[Bar]
    which: str
    note: str


def probes(results: dict[str, Result], weights: str | None) -> list[Probe]:
    return [of_probe(name, result, weights) for name, result in results.items()]


def of_probe(name: str, result: Result, weights: str | None) -> Probe:
    bars = []
    for key, title in BESIDE.items():
        if isinstance(result.get(key), float):
            interval = result.get("interval") if key == "top1" else None
            bars.append(Bar(title, result[key], top1(result) if key == "top1" else f"{result[key]:.2%}", interval))
    if isinstance(result.get("top5"), float):
        bars.insert(1, Bar("this encoder, top-5", result["top5"], f"{result['top5']:.2%}"))
    for fraction in result.get("fractions") or {}:
        for key, title in FEW.items():
            value = result.get(key, {}).get(fraction)
            if isinstance(value, float):
                images = (result.get("fractions_images") or {}).get(fraction)
                labels = f"{100 * float(fraction):.4g} % of the labels" if images is None else f"{images:,} labels"
                bars.append(Bar(f"{title}with {labels}", value, f"{value:.2%}"))
    return Probe(NAMES.get(name, name), bars, f"top-1 on {note_of(result, 'test images', weights)}")


def note_of(result: Result, what: str, weights: str | None) -> str:
    """On how many of which images, how, at which step, what was not to be known, and whether other weights than those shown."""
    tested = f"all {result['n_test']:,} {what}" if "n_test" in result else what
    step = f", step {result['step']:,}" if isinstance(result.get("step"), int) else ""
    stale = ": not the weights of this report" if is_stale(result, weights) else ""
    how, unseen = f", {way(result)}" if way(result) else "", result.get("unseen") or []
    names = ", ".join(unseen[:3]) + ", …" * (len(unseen) > 3)
    unknown = f", {len(unseen)} of its classes without images to train on ({names})" if unseen else ""
    return f"{tested} of {Path(str(result.get('data', ''))).name or 'its data'}{how}{step}{unknown}{stale}"


def is_stale(result: Result, weights: str | None) -> bool:
    return weights is not None and result.get("weights") != weights


def confusion(results: dict[str, Result], weights: str | None) -> Confusion | None:
    """Of the first probe that recorded one."""
    for name, result in results.items():
        note = note_of(result, "test images", weights)
        counts, classes = result.get("confusion"), result.get("classes")
        if counts and classes and len(classes) == len(counts):
            cells = [[Cell(count, count / max(1, sum(row))) for count in row] for row in counts]
            few, pairs = len(classes) <= SMALL, worst_pairs(cells, classes)
            return Confusion(NAMES.get(name, name), classes, cells if few else None, None if few else matrix(cells), pairs, note)
        if classes and result.get("confused"):
            found = [
                (classes[each["truth"]], classes[each["taken"]], Cell(each["images"], each["share"]))
                for each in result["confused"]
            ]
            return Confusion(NAMES.get(name, name), classes, None, None, found[:PAIRS], note)
    return None


def matrix(cells: list[list[Cell]]) -> Picture:
    """Shares as brightness, a square of pixels each; the root of a share, so that the small ones are seen."""
    shares = np.sqrt([[cell.share for cell in row] for row in cells])
    pixels = (mpl.colormaps["magma"](shares)[..., :3] * 255).astype(np.uint8)
    zoom = max(1, MATRIX // len(cells))
    return picture(pixels.repeat(zoom, 0).repeat(zoom, 1), f"confusion of {len(cells)} classes, a row a true class", exact=True)


def worst_pairs(cells: list[list[Cell]], classes: list[str]) -> list[tuple[str, str, Cell]]:
    """(truth, taken for, how often), the most frequent first."""
    pairs = [
        (classes[i], classes[j], cell) for i, row in enumerate(cells) for j, cell in enumerate(row) if i != j and cell.images
    ]
    return sorted(pairs, key=lambda pair: (-pair[2].images, pair[:2]))[:PAIRS]


def per_class(results: dict[str, Result], weights: str | None) -> PerClass | None:
    """Of the first probe that recorded them: of many classes the ends."""
    for name, result in results.items():
        found, classes = result.get("per_class"), result.get("classes")
        if found and classes and len(found) == len(classes):
            known = [(title, share) for title, share in zip(classes, found, strict=True) if share is not None]
            bars = [Bar(title, share, f"{share:.1%}") for title, share in sorted(known, key=lambda each: -each[1])]
            probe, note = NAMES.get(name, name), note_of(result, "test images", weights)
            if len(bars) <= 2 * ENDS:
                return PerClass(probe, bars, "each class", note)
            return PerClass(probe, bars[:ENDS] + bars[-ENDS:], f"the {ENDS} best and the {ENDS} worst classes", note)
    return None
