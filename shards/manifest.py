"""``dataset.json``: what a shard set holds. Written last, so a set without it is unfinished."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amdim.errors import UsageError, UserError
from amdim.shards.atomic import atomic

FILE = "dataset.json"
UNFINISHED = ".unfinished.jsonl"  # beside the shards of a build that is under way, see journal.py
FORMAT = 2  # 2: the indices hold checksums of the images
WITHOUT_SOURCE = ("shapes", "fashion-mnist", "cifar10", "cifar100", "stl10")  # sets that are made or can be fetched
IN_PLACE = "in_place"  # in the recipe of a set whose tars were made by others, and only indexed
PUBLISHED = (*WITHOUT_SOURCE, "imagenet", "places205")
DEFAULTS = {"seed": 0, "size": 256, "quality": 90, "val": 0.1}


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
    """A finished set. ``mean`` and ``std`` are per RGB channel over the training pixels, as fractions of 255.

    ``rejected`` counts the lines of ``rejected.jsonl``; None where there is no such file.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    splits: dict[str, Split]
    recipe: dict[str, Any]
    tools: dict[str, str]
    rejected: int | None = None
    format: int = FORMAT


def load(directory: Path) -> Manifest:
    """Reads the manifest of the set in ``directory``; raises UsageError if there is none, UserError if it is damaged."""
    path = directory / FILE
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such data set; make it with `{how_to_make(directory)}`")
    try:
        return parse(path.read_bytes(), str(path), lambda: f"build the set again with `{how_to_make(directory, overwrite=True)}`")
    except FileNotFoundError:
        how = how_to_make(directory)
        raise UsageError(f"{directory}: no {FILE} here, so the set is missing or unfinished; make it with `{how}`") from None


def parse(text: bytes, path: str, mend: Callable[[], str]) -> Manifest:
    """A manifest from the contents of a file; raises UserError, which names ``path`` and ends with what ``mend`` says."""
    try:
        fields = json.loads(text)
        if fields["format"] < FORMAT:
            raise UserError(f"{path}: built by an older version of this program; {mend()}")
        if fields["format"] > FORMAT:
            raise UserError(f"{path}: format {fields['format']}, of a newer version of this program, which is needed to read it")
        return _parse(fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error}); {mend()}") from None


def how_to_make(directory: Path, *, overwrite: bool = False) -> str:
    """The command that makes the set in ``directory``, with the name and options that what stands there still tells."""
    for file in (FILE, UNFINISHED):
        try:
            text = (directory / file).read_bytes()
            fields = json.loads(text if file == FILE else text.partition(b"\n")[0])
            name, recipe = str(fields["recipe"]["source"]), dict(fields["recipe"])
        except (OSError, ValueError, TypeError, KeyError):
            continue
        return command(name, directory, recipe, fields.get("src"), overwrite=overwrite)
    name = directory.name if directory.name in PUBLISHED else "folder"
    return command(name, directory, {}, None, overwrite=overwrite)


def command(name: str, directory: Path, recipe: Mapping[str, Any], src: str | None, *, overwrite: bool) -> str:
    """``make shards …`` as one types it. A finished set does not know where its images were: that stands there as a blank."""
    words = ["make", "shards", f"DATA={name}"]
    if recipe.get(IN_PLACE):
        return shlex.join([*words, f"SRC={directory}"] + ["ARGS=--overwrite"] * overwrite)
    if src or name not in WITHOUT_SOURCE:
        words.append(f"SRC={src or '/path/to/images'}")
    if directory != Path("data") / name:
        words.append(f"OUT={directory}")
    options = [
        f"--{key} {recipe[key]}" for key in ("seed", "size", "quality", "val") if recipe.get(key) not in (None, DEFAULTS[key])
    ]
    options += (
        ["--rewrite"] * (name == "webdataset") + ["--unlabeled"] * bool(recipe.get("unlabeled")) + ["--overwrite"] * overwrite
    )
    return shlex.join(words + [f"ARGS={' '.join(options)}"] * bool(options))


def save(manifest: Manifest, directory: Path) -> None:
    """Writes ``dataset.json`` whole or not at all; equal manifests give equal bytes."""
    fields = asdict(manifest)
    with atomic(directory / FILE) as file:
        file.write((json.dumps(fields | {"digest": _digest(fields)}, indent=2, sort_keys=True) + "\n").encode())


def is_edited(directory: Path) -> bool:
    """Whether ``dataset.json`` was changed after it was written: a set may be used so, but is not what was built."""
    fields = json.loads((directory / FILE).read_bytes())
    return bool(fields.pop("digest", None) != _digest(fields))


def is_in_place(directory: Path) -> bool:
    """Whether the tars there were made by others, and only indexed: not to be removed. True even of a damaged manifest."""
    path = directory / FILE
    return path.exists() and f'"{IN_PLACE}": true'.encode() in path.read_bytes()


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _parse(fields: dict[str, Any]) -> Manifest:
    fields.pop("digest", None)
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
