"""Which recipe a command means: a name, a user's own TOML file, or what a run's config.json holds.

A file's fields are those of ``Recipe``, beside ``base``, the named recipe that says the rest (docs/views.md has an example).
A run keeps the whole recipe, so that it can be probed and continued without the file.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from amdim.errors import UsageError
from amdim.pipeline.augment.recipe_rules import RULES, disagreement
from amdim.pipeline.augment.recipes import RECIPES, Recipe

OWN = "own"  # what a recipe out of a file is called


def choose_recipe(option: str | None, table: dict[str, Any] | None, name: str) -> tuple[str, Recipe]:
    """Name and recipe: of ``--recipe``, or else of the ``views`` in ``--config`` over ``name``, or else those of ``name``.

    Raises:
        UsageError: there is no such recipe or file, or a field says what no recipe can; names it.
    """
    if option or not table:
        return find_recipe(option or name)
    base = {"base": name} if name in RECIPES else {}
    recipe = from_fields(base | table, "--config, views")
    return (name if recipe == RECIPES.get(name) else OWN), recipe


def find_recipe(option: str) -> tuple[str, Recipe]:
    """Name and recipe for ``--recipe NAME|FILE.toml``."""
    if option in RECIPES:
        return option, RECIPES[option]
    if not option.endswith(".toml"):
        raise UsageError(f"--recipe {option}: there is no such recipe; there are {', '.join(RECIPES)}, or give a file.toml")
    return OWN, from_fields(read(Path(option)), option)


def read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"--recipe {path}: there is no such file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from error


def from_fields(fields: dict[str, Any], source: str) -> Recipe:
    """The recipe that ``fields`` describe; ``source`` is where they stand, for errors."""
    base = fields.get("base", "imagenet128")
    if base not in list(RECIPES):  # whatever TOML can hold may stand here
        raise UsageError(f"{source}: base = {base!r} must be one of {', '.join(RECIPES)}")
    given = {name: value for name, value in fields.items() if name != "base"}
    for name, value in given.items():
        check(name, value, source)
    recipe = replace(RECIPES[base], **{name: RULES[name].convert(value) for name, value in given.items()})
    if "size" in given and "resize" not in given:  # the same part of an image as the base shows
        recipe = replace(recipe, resize=round(recipe.size * RECIPES[base].resize / RECIPES[base].size))
    if wrong := disagreement(recipe, set(given)):
        raise UsageError(f"{source}: {wrong}")
    return recipe


def check(name: str, value: Any, source: str) -> None:
    if name not in RULES:
        near = get_close_matches(name, ["base", *RULES], 1, cutoff=0)[0]
        raise UsageError(f"{source}: there is no field '{name}'; the nearest is '{near}'; docs/views.md lists all")
    if not RULES[name].holds(value):
        raise UsageError(f"{source}: {name} = {value!r} must be {RULES[name].allowed}")


def as_fields(recipe: Recipe) -> dict[str, Any]:
    """All fields, as config.json keeps them and ``from_fields`` reads them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(recipe).items()}


def recipe_of(config: dict[str, Any]) -> Recipe:
    """The recipe that a run was trained with, by its config.json."""
    fields = config.get("views")
    return from_fields(fields, "config.json") if fields else RECIPES[config["settings"]["recipe"]]
