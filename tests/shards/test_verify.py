"""Whatever is wrong with a set, verify names the file, and the sample where it can."""

import hashlib
import json
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amdim.shards import index, manifest, verify
from amdim.shards.shapes import renderer


@pytest.fixture
def copy(shapes_set, tmp_path):
    return shutil.copytree(shapes_set, tmp_path / "copy")


def faults(directory, fast=False):
    return verify.verify(directory, manifest.load(directory), fast=fast, workers=1, show=lambda _: None)


def reseal(directory, name):
    """Makes the manifest agree with a changed shard, so that what is left to find is inside."""
    path = directory / manifest.FILE
    fields = json.loads(path.read_bytes())
    for split in fields["splits"].values():
        for shard in split["shards"]:
            if shard["file"] == name:
                shard["sha256"] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(fields))
    manifest.save(manifest.load(directory), directory)


def image_at(directory, row, name="train-00002"):
    return index.load_index(directory / f"{name}.npy")[row], index.key_of(directory / f"{name}.idx", row)


def overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("fast", [False, True])
def test_a_whole_set_has_no_faults(shapes_set, fast):
    assert faults(shapes_set, fast) == []


def test_a_flipped_bit_is_found_and_its_sample_named(copy):
    tar = copy / "train-00002.tar"
    row, key = image_at(copy, 7)
    middle = int(row["offset"] + row["size"] // 2)
    overwrite(tar, middle, bytes([tar.read_bytes()[middle] ^ 16]))
    digest = "train-00002.tar: its SHA-256 is not the one in dataset.json"
    changed = f"train-00002.tar, key {key}: the image has changed since it was indexed"
    assert faults(copy, fast=True) == [digest, changed]
    assert faults(copy) == [digest, f"train-00002.tar, key {key}: DALI cannot decode it", changed]


def test_every_bad_image_is_named_and_no_good_one(copy):
    keys = []
    for number in (3, 4, 60):
        row, key = image_at(copy, number)
        overwrite(copy / "train-00002.tar", int(row["offset"] + row["size"] // 2), b"\0" * 50)
        keys.append(key)
    reseal(copy, "train-00002.tar")
    named = [fault for fault in faults(copy) if "DALI cannot decode it" in fault]
    assert [fault.partition(": DALI cannot")[0] for fault in named] == [f"train-00002.tar, key {key}" for key in keys]


def test_a_missing_shard(copy):
    (copy / "train-00003.tar").unlink()
    assert faults(copy, fast=True) == ["train-00003.tar: missing"]


def test_an_extra_shard(copy):
    shutil.copy(copy / "val-00000.tar", copy / "val-00001.tar")
    assert faults(copy, fast=True) == ["val-00001.tar: not named in dataset.json"]


def test_a_truncated_shard(copy):
    tar = copy / "train-00004.tar"
    tar.write_bytes(tar.read_bytes()[:-50_000])
    size, damaged = faults(copy)
    assert "bytes, dataset.json says" in size
    assert "train-00004.tar: damaged behind byte" in damaged


def test_an_edited_label_in_the_index(copy):
    path = copy / "train-00001.npy"
    rows = np.array(index.load_index(path))
    rows["label"][5] = (rows["label"][5] + 1) % 10
    np.save(path, rows)
    (fault,) = faults(copy, fast=True)
    assert fault.startswith(f"train-00001.npy: 1 rows differ from train-00001.tar, first key {101 + 5:09d}")


def test_an_edited_label_in_the_shard(copy):
    entry = index.read_idx(copy / "train-00001.idx")[5]
    label = next(member for member in entry if member.suffix == "cls")
    old = int(index.load_index(copy / "train-00001.npy")[5]["label"])
    overwrite(copy / "train-00001.tar", label.offset, str((old + 1) % 10).encode())
    assert len(faults(copy, fast=True)) == 2
    reseal(copy, "train-00001.tar")
    (fault,) = faults(copy, fast=True)
    assert f"key {index.key(entry)}" in fault


@pytest.mark.parametrize("text", [b"?", b""], ids=["letter", "blank"])
def test_a_label_that_is_no_number(copy, text):
    entry = index.read_idx(copy / "train-00001.idx")[5]
    label = next(member for member in entry if member.suffix == "cls")
    overwrite(copy / "train-00001.tar", label.offset, text or b" ")
    reseal(copy, "train-00001.tar")
    assert any("invalid literal" in fault and index.key(entry) in fault for fault in faults(copy, fast=True))


@pytest.mark.parametrize("suffix", [".idx", ".npy"])
def test_a_swapped_index(copy, suffix):
    one, other = (copy / f"train-0000{number}{suffix}" for number in (1, 2))
    shutil.copy(one, copy / "keep")
    shutil.copy(other, one)
    shutil.copy(copy / "keep", other)
    assert [fault.partition(":")[0] for fault in faults(copy, fast=True)] == [one.name, other.name]


@pytest.mark.parametrize("suffix", [".idx", ".npy"])
def test_a_missing_or_garbled_index(copy, suffix):
    path = copy / f"train-00001{suffix}"
    path.write_bytes(b"garbage")
    assert "no readable index" in faults(copy, fast=True)[0]
    path.unlink()
    assert "no readable index" in faults(copy, fast=True)[0]


def test_a_shard_of_another_length_than_the_manifest_says(copy):
    tar = copy / "val-00000.tar"
    with tarfile.open(tar) as archive:
        kept = [member for member in archive if not member.name.startswith("000000039")]
        cut = max(member.offset_data + 512 * -(-member.size // 512) for member in kept)
    data = tar.read_bytes()
    tar.write_bytes(data[:cut] + b"\0" * (len(data) - cut))
    index.write_index(tar)
    reseal(copy, "val-00000.tar")
    assert faults(copy, fast=True) == ["val-00000.tar: 39 samples, dataset.json says 40"]


def test_a_mask_that_does_not_decode(copy):
    offset, _ = index.mask_spans(copy / "val-00000.idx")[11]
    overwrite(copy / "val-00000.tar", int(offset) + 30, b"\0" * 100)
    reseal(copy, "val-00000.tar")
    (fault,) = faults(copy)
    assert fault.startswith("val-00000.tar, key 000000011: DALI cannot decode it")


def test_what_only_dali_refuses_is_named(copy):
    """A GIF under the name of a PNG: Pillow takes it, DALI does not."""
    row, key = image_at(copy, 9)
    buffer = BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "GIF")
    overwrite(copy / "train-00002.tar", int(row["offset"]), buffer.getvalue())
    index.write_index(copy / "train-00002.tar")
    reseal(copy, "train-00002.tar")
    assert faults(copy, fast=True) == []
    assert faults(copy) == [f"train-00002.tar, key {key}: DALI cannot decode it"]


def test_two_workers_find_what_one_finds(copy):
    (copy / "train-00003.tar").unlink()
    row, _ = image_at(copy, 9)
    overwrite(copy / "train-00002.tar", int(row["offset"]) + 3000, b"\0" * 50)
    found = verify.verify(copy, manifest.load(copy), fast=False, workers=2, show=lambda _: None)
    assert len(found) == 4
    assert found == faults(copy)


def edited(directory, **changes):
    path = directory / manifest.FILE
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


@pytest.mark.parametrize("change", [{"mean": [0.1, 0.2, 0.3]}, {"classes": list("abcdefghij")}, {"recipe": {}}])
def test_an_edited_manifest(copy, change):
    edited(copy, **change)
    assert faults(copy, fast=True) == ["dataset.json: edited since it was written"]


def test_a_manifest_edited_about_a_shard(copy):
    fields = json.loads((copy / manifest.FILE).read_bytes())
    fields["splits"]["val"]["labelled"] -= 1
    edited(copy, splits=fields["splits"])
    assert faults(copy, fast=True)[1:] == ["val: 40 samples have a label, dataset.json says 39"]


def test_swapped_shards(copy):
    one, other = copy / "train-00001.tar", copy / "train-00002.tar"
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    found = {fault.partition(":")[0].partition(",")[0] for fault in faults(copy, fast=True)}
    assert found == {one.name, other.name, "train-00001.idx", "train-00002.idx", "train-00001.npy", "train-00002.npy"}


def test_a_stale_index(copy, tmp_path, quietly):
    """Of another build of the same pictures in another order."""
    quietly(renderer.source(0, {"train": 808, "val": 40}), tmp_path / "other", seed=1)
    shutil.copy(tmp_path / "other/train-00001.npy", copy)
    (fault,) = faults(copy, fast=True)
    assert fault.startswith("train-00001.npy: ")


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_list_of_rejections_that_is_not_all(copy, damage):
    edited(copy, rejected=1)
    manifest.save(manifest.load(copy), copy)
    if damage == "missing":
        (copy / "rejected.jsonl").unlink()
    expected = {"missing": "No such file or directory", "short": "0 lines, dataset.json says 1"}[damage]
    assert faults(copy, fast=True) == [f"rejected.jsonl: {expected}"]


@pytest.mark.parametrize("suffix", [".tar", ".idx", ".npy"])
def test_a_file_one_may_not_read(copy, suffix, monkeypatch):
    """Root reads all, so the refusal is the kernel's in words only."""
    path = copy / f"train-00001{suffix}"
    real = open

    def refuse(self, *arguments, **options):
        if Path(self) == path:
            raise PermissionError(13, "Permission denied", str(path))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_text", lambda self: refuse(self).read())
    monkeypatch.setattr("builtins.open", refuse)
    (fault,) = faults(copy, fast=True)
    assert fault.startswith(f"{path.name}: Permission denied" if suffix == ".tar" else f"{path}: no readable index")
    assert "Permission denied" in fault
