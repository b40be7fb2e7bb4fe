"""``dataset.json``: what a shard set holds. Written last, so a set without it is unfinished."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from errors import UsageError, UserError

from .atomic import atomic

FILE = "dataset.json"
FORMAT = 1
WITHOUT_SOURCE = ("shapes", "fashion-mnist")  # sets that need no images of the user


@dataclass(frozen=True)
class Shard:
    """One tar file: its name, samples, length in bytes and SHA-256 (hexadecimal)."""

    file: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """Shards that belong together; ``labelled`` of the ``samples`` have a class."""

    samples: int
    labelled: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Manifest:
    """A finished set. ``mean`` and ``std`` are per RGB channel over the training pixels, as fractions of 255."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    splits: dict[str, Split]
    recipe: dict[str, Any]
    tools: dict[str, str]
    format: int = FORMAT


def load(directory: Path) -> Manifest:
    """Reads the manifest of the set in ``directory``; raises UsageError if there is none, UserError if it is damaged."""
    path = directory / FILE
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such data set; make it with `{how_to_make(directory)}`")
    try:
        fields = json.loads(path.read_bytes())
        if fields["format"] != FORMAT:
            raise UserError(f"{path}: format {fields['format']}, this program reads {FORMAT}; build the set again")
        return _parse(fields)
    except FileNotFoundError:
        how = how_to_make(directory)
        raise UsageError(f"{directory}: no {FILE} here, so the set is missing or unfinished; make it with `{how}`") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: damaged ({reason}); build the set again with `--overwrite`") from None


def how_to_make(directory: Path) -> str:
    """The command that makes the set in ``directory``."""
    if directory.name in WITHOUT_SOURCE:
        return f"make shards DATA={directory.name}"
    return f"make shards DATA=folder SRC=/path/to/images OUT={directory}"


def save(manifest: Manifest, directory: Path) -> None:
    """Writes ``dataset.json`` whole or not at all; equal manifests give equal bytes."""
    with atomic(directory / FILE) as file:
        file.write((json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n").encode())


def _parse(fields: dict[str, Any]) -> Manifest:
    splits = {name: _parse_split(split) for name, split in fields.pop("splits").items()}
    mean, std = rgb(fields.pop("mean")), rgb(fields.pop("std"))
    return Manifest(classes=tuple(fields.pop("classes")), mean=mean, std=std, splits=splits, **fields)


def _parse_split(fields: dict[str, Any]) -> Split:
    shards = tuple(Shard(**shard) for shard in fields.pop("shards"))
    split = Split(shards=shards, **fields)
    if split.samples != sum(shard.samples for shard in shards):
        raise ValueError("the samples of the shards do not add up")
    if any(Path(shard.file).name != shard.file for shard in shards):
        raise ValueError("a shard's file name holds a directory")
    return split


def rgb(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
