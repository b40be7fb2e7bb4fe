"""How a directory of images is laid out: classes, or splits and classes below them, or neither.

A directory is a split if its name is a word for one (``split_names``) and directories of classes lie in it. What could be meant
in two ways stops the build with the ``--src`` or the renaming that makes it clear: a split taken for a class is trained on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from amdim.errors import UsageError
from amdim.shards.sources import split_names

DEPTH = 3  # directories of a path that a survey looks at
FEW = 4  # names in a message
Counts = Mapping[tuple[str, ...], int]  # images by the first DEPTH directories they lie in


@dataclass(frozen=True)
class Layout:
    """Which split and class a file belongs to.

    Attributes:
        place: split and class of a path below the directory; None for neither, an empty split where a part is to be set apart.
        classes: their names, sorted.
        splits: of directories, where they are given.
        left_out: directories that look like splits and hold no classes.
    """

    place: Callable[[str], tuple[str, str] | None]
    classes: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def find_layout(src: Path, counts: Counts, val: float | None, unlabeled: bool) -> Layout:
    """Return how the images in ``src`` are laid out.

    Raises:
        UsageError: they are laid out in no way that is known, or in one that can be meant in two ways; says what to type.
    """
    if unlabeled:
        return Layout(lambda _: ("", ""))
    tops = {where[0] for where in counts if where}
    if not tops:
        raise UsageError(f"{src}: its images lie in no class directories; images without classes need --unlabeled")
    if given := given_splits(src, counts, tops):
        if val is not None:
            raise UsageError(f"{src}: has splits of its own ({', '.join(sorted(given))}), so --val makes no sense; leave it out")
        return layout_of_splits(src, counts, given)
    check_below(src, counts)
    return Layout(lambda path: ("", path.partition("/")[0]) if "/" in path else None, tuple(sorted(tops)))


def children(counts: Counts, top: str) -> set[str]:
    """Return the names of directories in ``top`` that hold images."""
    return {where[1] for where in counts if len(where) > 1 and where[0] == top}


def given_splits(src: Path, counts: Counts, tops: set[str]) -> dict[str, str]:
    """Return the split of each directory that is one; nothing where the directories are classes.

    Raises:
        UsageError: some are and some are not, two mean the same split, or there is nothing to train on or to test on.
    """
    found = {top: parsed for top in sorted(tops) if (parsed := split_names.parse(top))}
    others = sorted(tops - found.keys())
    prefixes = {parsed.prefix for parsed in found.values() if parsed.split == "train"}
    sets = [{top: each.split for top, each in found.items() if each.prefix == prefix} for prefix in sorted(prefixes)]
    whole = [given for given in sets if len(set(given.values())) > 1]
    if others and not any(children(counts, top) for top in found):
        return {}  # images lie right in them, as in the others: a class of trains
    if len(whole) == 1:
        return check_splits(src, counts, whole[0])
    if found and not others:
        return check_splits(src, counts, {top: each.split for top, each in found.items()})
    if doubtful := [top for top in found if children(counts, top)]:
        top = doubtful[0]
        raise UsageError(
            f"{src}: {top} holds directories and lies next to {some(others)}; if it is a split, give --src {src / top}, "
            "if it is a class, rename it"
        )
    return {}


def check_splits(src: Path, counts: Counts, given: dict[str, str]) -> dict[str, str]:
    """
    Raises:
        UsageError: two directories mean the same split, or one of the two that are needed is missing.
    """
    for split in given.values():
        if len(same := [top for top, each in given.items() if each == split]) > 1:
            raise UsageError(f"{src}: {' and '.join(same)} both mean the split {split}; join them, or move one away")
    by_split = {split: top for top, split in given.items()}
    if "train" not in by_split:
        raise UsageError(f"{src}: holds {some(given)} but no train; name a directory with both, or with directories of classes")
    train = by_split["train"]
    if not by_split.keys() & {"val", "test"}:
        raise UsageError(f"{src}: holds {train} but no val; with --src {src / train} a part of it is set apart as val")
    for top, split in given.items():
        inner = children(counts, top)
        if len(inner) == 1 and (parsed := split_names.parse(*inner)) and parsed.split == split:
            raise UsageError(f"{src}: {top} holds nothing but {top}/{min(inner)}; move what is in there up to {top}")
    return given


def layout_of_splits(src: Path, counts: Counts, given: dict[str, str]) -> Layout:
    """Return the layout of directories of splits; a ``test`` is called val where there is no other.

    Raises:
        UsageError: those to train on or to validate on hold no classes.
    """
    names = {top: "val" if split == "test" and "val" not in given.values() else split for top, split in given.items()}
    inside = {top: children(counts, top) for top in names}
    if flat := [top for top, split in names.items() if split in ("train", "val") and not inside[top]]:
        raise UsageError(f"{src}: no class directories below {' and '.join(flat)}; images without classes need --unlabeled")
    unlabeled = [top for top, split in names.items() if split == "unlabeled"]
    classes = set().union(*(inside[top] for top in names if top not in unlabeled))

    def place(path: str) -> tuple[str, str] | None:
        parts = path.split("/", 2)
        if parts[0] in unlabeled:
            return "unlabeled", ""
        return (names[parts[0]], parts[1]) if len(parts) == 3 and parts[0] in names else None

    left_out = tuple(top for top in names if not inside[top] and top not in unlabeled)
    return Layout(place, tuple(sorted(classes)), names, left_out)


def check_below(src: Path, counts: Counts) -> None:
    """
    Raises:
        UsageError: splits lie further down: that directory is meant, or classes hold splits of their own.
    """
    for depth in range(1, DEPTH):
        below: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for where in counts:
            if len(where) > depth:
                below[where[:depth]].add(where[depth])
        holders = sorted(path for path, names in below.items() if holds_splits(names))
        if len(holders) == 1:
            raise UsageError(f"{src}: its splits lie further down; give --src {src.joinpath(*holders[0])}")
        if holders:
            names = some(["/".join(path) for path in holders])
            raise UsageError(
                f"{src}: {names} hold splits of their own; give one of them with --src, or if they are classes, "
                "lay them out as train/CLASS and val/CLASS"
            )


def holds_splits(names: set[str]) -> bool:
    splits = {parsed.split for name in names if (parsed := split_names.parse(name))}
    return "train" in splits and not splits.isdisjoint(("val", "test"))


def some(names: Mapping[str, str] | list[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:FEW]) + (", …" if len(listed) > FEW else "")
