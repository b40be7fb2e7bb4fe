"""A file of settings for ``--config``: TOML with fields of a run and of its preset, or a run's config.json, which repeats it.

preset = "demo"
lr = 1e-3
milestones = [0.5, 0.8]

[encoder]
width = 64

[views]
hue = 0
"""

from __future__ import annotations

import json
import tomllib
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import typer

from amdim.engine.presets import Preset
from amdim.engine.runs import Config
from amdim.errors import UsageError
from amdim.model.encoder import EncoderConfig

RUN = {name: kind for name, kind in get_type_hints(Config).items() if name not in ("settings", "views")}
FORM = "write lines as in lr = 1e-3, or give the config.json of a run"
WORDS = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}


class SettingsFile(NamedTuple):
    """``run`` are options of the command by their names in Python; ``preset`` and ``views`` are changes to the preset and to its
    recipe; ``machine`` is what a config.json says of where it was written.
    """

    run: dict[str, Any]
    preset: dict[str, Any]
    views: dict[str, Any]
    machine: dict[str, str]


def read(path: Path) -> SettingsFile:
    """The settings in a file; that a number is in its range is for the preset to say.

    Raises:
        UsageError: it cannot be read, or a field has another name or type; names it.
    """
    found = parse(path)
    found |= found.pop("settings", {})  # as config.json has them
    machine = found.pop("machine", {})
    kinds = get_type_hints(Preset)
    del kinds["note"]
    views = found.pop("views", None) or {}  # whether they make a recipe, the pipeline knows
    if not isinstance(views, dict):
        raise UsageError(f"{path}: views {views!r}: give a table, [views], with fields of docs/views.md")
    run = {name: checked(path, name, found[name], kind) for name, kind in RUN.items() if name in found}
    preset = {name: checked(path, name, found[name], kind) for name, kind in kinds.items() if name in found}
    for name in found.keys() - run.keys() - preset.keys():
        raise UsageError(f"{path}: {name}: there is no such field{hint(name, [*RUN, *kinds, 'views'])}")
    run = {name: value for name, value in run.items() if value is not None}
    if path.suffix != ".json" and "steps" in run and "epochs" in preset:
        raise UsageError(f"{path}: steps and epochs: both say how long the run is; give one")
    return SettingsFile(run, preset, views, machine if isinstance(machine, dict) else {})


def use(ctx: typer.Context, path: Path | None) -> Path | None:
    """Fields of a run become the command's defaults, so that its options win; the others wait in ``ctx.obj`` and ``ctx.meta``."""
    if path is not None:
        ctx.default_map, ctx.obj, ctx.meta["views"], ctx.meta["machine"] = read(path)
    return path


def length(ctx: typer.Context) -> int | None:
    """The steps that were asked for; None where epochs were.

    Raises:
        UsageError: both were, on the command line.
    """
    typed = {name for name in ("steps", "epochs") if was_typed(ctx, name)}
    if len(typed) > 1:
        raise UsageError("--steps and --epochs: both say how long the run is; give one")
    return None if "epochs" in typed else ctx.params["steps"]


def was_typed(ctx: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}; give a TOML file, or the config.json of a run") from error
    except ValueError as error:
        raise UsageError(f"--config {path}: cannot be read ({error}); {FORM}") from error
    if not isinstance(found, dict) or not isinstance(found.get("settings", {}), dict):
        raise UsageError(f"--config {path}: holds no fields; {FORM}")
    return found


def checked(path: Path, name: str, value: Any, kind: Any) -> Any:
    """``value`` as the type that the field has."""
    if kind is EncoderConfig:
        return encoder_fields(path, value)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{path}: {name} {value!r}: give a list in brackets")
        return tuple(checked(path, name, each, get_args(kind)[0]) for each in value)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(f"{path}: {name} {value!r}: give {' or '.join(get_args(kind))}")
        return value
    if type(value) in (kind, *get_args(kind)) or (value is None and NoneType in get_args(kind)):
        return value
    if kind is float and type(value) is int:
        return float(value)
    raise UsageError(f"{path}: {name} {value!r}: give {WORDS[kind if kind in WORDS else str]}")


def encoder_fields(path: Path, value: Any) -> dict[str, Any]:
    """What of the encoder is to be another."""
    kinds = get_type_hints(EncoderConfig)
    if not isinstance(value, dict):
        raise UsageError(f"{path}: encoder {value!r}: give a table, [encoder], with {', '.join(kinds)}")
    for name in value:
        if name not in kinds:
            raise UsageError(f"{path}: encoder.{name}: there is no such field{hint(name, list(kinds))}")
    return {name: checked(path, f"encoder.{name}", each, kinds[name]) for name, each in value.items()}


def hint(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, 1)
    return f"; is it {close[0]}?" if close else f"; there are {', '.join(names)}"
