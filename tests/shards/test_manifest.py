"""dataset.json comes back as it went out, and whatever else stands there is refused in a line."""

import json
from pathlib import Path

import pytest

from amdim.errors import UsageError, UserError
from amdim.shards import manifest


def test_round_trip_gives_the_same_bytes(shapes_set, tmp_path):
    found = manifest.load(shapes_set)
    manifest.save(found, tmp_path)
    assert (tmp_path / manifest.FILE).read_bytes() == (shapes_set / manifest.FILE).read_bytes()
    assert manifest.load(tmp_path) == found
    assert isinstance(found.classes, tuple)
    assert isinstance(found.splits["train"].shards[0], manifest.Shard)


def test_a_missing_or_unfinished_set_says_what_to_type(tmp_path):
    (tmp_path / "imagenet").mkdir()
    for name, command in (
        ("imagenet", "DATA=imagenet SRC=.* OUT=.*imagenet"),
        ("none", "DATA=folder"),
        ("shapes", "DATA=shapes OUT=.*shapes`"),
    ):
        directory = tmp_path / name
        with pytest.raises(UsageError, match=f"{directory}: .*make shards {command}"):
            manifest.load(directory)


@pytest.mark.parametrize(
    ("name", "recipe", "expected"),
    [
        ("shapes", {"source": "shapes", "seed": 0, "size": None}, "make shards DATA=shapes 'OUT={}' ARGS=--overwrite"),
        (
            "folder",
            {"source": "folder", "seed": 3, "size": 256, "quality": 80, "val": 0.1, "unlabeled": True, "files": "abc"},
            "make shards DATA=folder SRC=/path/to/images 'OUT={}' 'ARGS=--seed 3 --quality 80 --unlabeled --overwrite'",
        ),
    ],
)
def test_an_older_set_says_how_to_build_it_again(tmp_path, name, recipe, expected):
    directory = tmp_path / "my set"
    directory.mkdir()
    (directory / manifest.FILE).write_text(json.dumps({"format": 1, "name": name, "recipe": recipe, "splits": {}}))
    with pytest.raises(UserError) as error:
        manifest.load(directory)
    again = expected.format(directory)
    assert (
        str(error.value)
        == f"{directory}/dataset.json: built by an older version of this program; build the set again with `{again}`"
    )


def test_any_edit_is_told_from_what_was_written(shapes_set, tmp_path):
    text = (shapes_set / manifest.FILE).read_bytes()
    assert not manifest.is_edited(shapes_set)
    for keys, value in ((["mean"], [0.1, 0.2, 0.3]), (["classes"], list("abcdefghij")), (["recipe", "seed"], 7)):
        (tmp_path / manifest.FILE).write_bytes(with_field(text, *keys, value=value))
        assert manifest.is_edited(tmp_path)
        manifest.load(tmp_path)


def with_field(text: bytes, *keys: str, value) -> bytes:
    fields = part = json.loads(text)
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:100], "damaged"),
        (lambda _: b"[]", "damaged"),
        (lambda _: b"{}", "damaged"),
        (lambda text: with_field(text, "format", value=manifest.FORMAT + 1), "of a newer version"),
        (lambda text: with_field(text, "colour", value=1), "damaged"),
        (lambda text: with_field(text, "mean", value=[1]), "damaged"),
        (lambda text: with_field(text, "splits", "val", "samples", value=1), "do not add up"),
        (lambda text: with_field(text, "splits", "val", value=None), "damaged"),
    ],
)
def test_damage_is_told_in_one_line(shapes_set, tmp_path, damage, message):
    path = tmp_path / manifest.FILE
    path.write_bytes(damage((shapes_set / manifest.FILE).read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        manifest.load(tmp_path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_shard_may_not_point_elsewhere(shapes_set, tmp_path):
    fields = json.loads((shapes_set / manifest.FILE).read_bytes())
    fields["splits"]["val"]["shards"][0]["file"] = "../val-00000.tar"
    (tmp_path / manifest.FILE).write_text(json.dumps(fields))
    with pytest.raises(UserError, match="holds a directory"):
        manifest.load(tmp_path)


def test_the_command_leaves_out_what_is_the_default():
    assert manifest.command("shapes", Path("data/shapes"), {"seed": 0}, None, overwrite=False) == "make shards DATA=shapes"
