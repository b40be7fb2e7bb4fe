"""dataset.json comes back as it went out, and whatever else stands there is refused in a line."""

import json

import pytest

from errors import UsageError, UserError
from shards import manifest


def test_round_trip_gives_the_same_bytes(shapes_set, tmp_path):
    found = manifest.load(shapes_set)
    manifest.save(found, tmp_path)
    assert (tmp_path / manifest.FILE).read_bytes() == (shapes_set / manifest.FILE).read_bytes()
    assert manifest.load(tmp_path) == found
    assert isinstance(found.classes, tuple)
    assert isinstance(found.splits["train"].shards[0], manifest.Shard)


def test_a_missing_or_unfinished_set_says_what_to_type(tmp_path):
    (tmp_path / "imagenet").mkdir()
    for name, command in (("imagenet", "DATA=folder SRC=.* OUT=.*imagenet"), ("none", "DATA=folder"), ("shapes", "DATA=shapes`")):
        directory = tmp_path / name
        with pytest.raises(UsageError, match=f"{directory}: .*make shards {command}"):
            manifest.load(directory)


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
        (lambda text: with_field(text, "format", value=2), "format 2"),
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
