"""A user's own recipe: what a file may say, what an error says back, and that a run keeps all of it."""

import json
from dataclasses import fields, replace

import pytest

from amdim.errors import UsageError
from amdim.model.encoder import SIZES
from amdim.pipeline.augment.recipe_file import OWN, as_fields, choose_recipe, find_recipe, from_fields, recipe_of
from amdim.pipeline.augment.recipe_rules import RULES
from amdim.pipeline.augment.recipes import CIFAR32, GRAY32, IMAGENET128, RECIPES, STL64, Recipe

MICROSCOPE = """
base = "stl64"
mean = 0.31
std = 0.18
area = [0.5, 1.0]
saturation = 0
hue = 0
gray_p = 0
flip_vertical = 0.5
transpose = 0.5
"""


def written(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_file_changes_what_it_names_and_keeps_the_rest_of_its_base(tmp_path):
    name, recipe = find_recipe(written(tmp_path, MICROSCOPE))
    assert name == OWN
    gray = {"mean": (0.31,) * 3, "std": (0.18,) * 3, "saturation": 0.0, "hue": 0.0, "gray_p": 0.0}
    assert recipe == replace(STL64, area=(0.5, 1.0), flip_vertical=0.5, transpose=0.5, **gray)


def test_a_name_is_the_named_recipe():
    assert find_recipe("cifar32") == ("cifar32", CIFAR32)


def test_an_option_wins_over_a_table_and_a_table_over_the_presets_name(tmp_path):
    table = {"hue": 0}
    assert choose_recipe("gray32", table, "stl64") == ("gray32", GRAY32)
    assert choose_recipe(None, table, "stl64") == (OWN, replace(STL64, hue=0.0))
    assert choose_recipe(None, {}, "stl64") == ("stl64", STL64)
    assert choose_recipe(None, as_fields(STL64), "stl64") == ("stl64", STL64)
    assert choose_recipe(None, as_fields(STL64), OWN) == (OWN, STL64)


def test_without_a_base_the_rest_is_imagenets(tmp_path):
    assert find_recipe(written(tmp_path, "hue = 0.2"))[1] == replace(IMAGENET128, hue=0.2)


def test_another_size_keeps_the_part_of_the_image_that_evaluation_sees():
    assert from_fields({"base": "imagenet128", "size": 64}, "f").resize == 73
    assert from_fields({"base": "imagenet128", "size": 64, "resize": 64}, "f").resize == 64


def test_every_field_has_a_rule_that_every_named_recipe_keeps():
    assert set(RULES) == {field.name for field in fields(Recipe)}
    for recipe in RECIPES.values():
        assert all(RULES[name].holds(value) for name, value in as_fields(recipe).items())
    assert all(RULES["size"].holds(size) for size in SIZES)
    assert not RULES["size"].holds(48)


@pytest.mark.parametrize("recipe", [*RECIPES.values(), replace(GRAY32, flip_vertical=0.5)], ids=[*RECIPES, "own"])
def test_a_run_keeps_its_recipe(recipe):
    """Through JSON and back, whatever the named recipes are by then."""
    config = json.loads(json.dumps({"views": as_fields(recipe), "settings": {"recipe": "gone since"}}))
    assert recipe_of(config) == recipe


@pytest.mark.parametrize("recipe", [STL64, CIFAR32])
def test_a_run_that_is_older_than_some_fields_keeps_its_recipe(recipe):
    views = {name: value for name, value in as_fields(recipe).items() if name not in ("policy", "lighting")}
    assert recipe_of({"views": views}) == recipe


def test_a_run_without_its_own_record_has_the_recipe_of_its_name():
    assert recipe_of({"settings": {"recipe": "stl64"}}) == STL64


WRONG = {
    "brighness = 0.4": "no field 'brighness'; the nearest is 'brightness'",
    "Size = 64": "no field 'Size'; the nearest is 'size'",
    "size = 48": "size = 48 must be one of 32, 64, 128",
    "size = 32.0": "size = 32.0 must be one of 32, 64, 128",
    "size = true": "size = True must be one of",
    "flip = 1.5": "flip = 1.5 must be a number from 0 to 1",
    "flip = true": "flip = True must be a number from 0 to 1",
    "flip = nan": "flip = nan must be a number from 0 to 1",
    "hue = 36": "hue = 36 must be a number from 0 to 0.5",
    "mean = [0.5, 0.5]": "mean = [0.5, 0.5] must be a number from 0 to 1, or three of them",
    "std = 0": "std = 0 must be a number from 0.001 to 1",
    "area = 0.3": "area = 0.3 must be two numbers, [least, most], from 0.01 to 1",
    "area = [1.0, 0.3]": "area = [1.0, 0.3] must be two numbers, [least, most]",
    "crop = 'centre'": "crop = 'centre' must be one of 'resized', 'shift'",
    "color = 'fast'": "color = 'fast' must be one of 'exact', 'fused'",
    "policy = 'randaugment'": "policy = 'randaugment' must be one of 'none', 'fast-autoaugment'",
    "policy = true": "policy = True must be one of",
    "lighting = -0.1": "lighting = -0.1 must be a number from 0 to 1",
    "base = 'imagenet'": "base = 'imagenet' must be one of imagenet128",
    "base = ['stl64']": "base = ['stl64'] must be one of imagenet128",
    "size = 128\nresize = 64": "resize = 64 must be at least size, 128",
    "shift = 4": "shift is for crop = 'shift', and crop is 'resized'",
    "base = 'cifar32'\narea = [0.5, 1]": "area is for crop = 'resized', and crop is 'shift'",
    "flip = ": "is not TOML",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text.replace("\n", ", "))
def test_an_error_names_file_and_field_and_says_what_is_allowed(tmp_path, text):
    with pytest.raises(UsageError) as caught:
        find_recipe(written(tmp_path, text))
    assert WRONG[text] in str(caught.value)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["nonsense", "no/such/file.toml"])
def test_an_unknown_name_or_file_is_refused(option):
    with pytest.raises(UsageError, match=f"--recipe {option}: there is no such"):
        find_recipe(option)
