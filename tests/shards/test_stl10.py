"""STL-10 from its binary archive: pixels column by column, labels from 1, and a split without labels."""

import gzip

import numpy as np
import pytest

from amdim.errors import UsageError, UserError
from amdim.shards import manifest
from amdim.shards.sources import stl10
from tests.shards.archives import pixels, tar_bytes
from tests.shards.loading import is_trainable, pixels_of, rejected, stored

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
COUNTS = {"train": 6, "val": 5, "unlabeled": 7}
STEMS = {"train": "train", "val": "test", "unlabeled": "unlabeled"}


def images(split):
    return pixels(COUNTS[split], 96, len(split))


def labels(split):
    return np.random.default_rng(len(split)).integers(1, 11, COUNTS[split]).astype(np.uint8)


def files():
    found = {f"{STEMS[split]}_X.bin": images(split).transpose(0, 3, 2, 1).tobytes() for split in COUNTS}
    found |= {f"{STEMS[split]}_y.bin": labels(split).tobytes() for split in ("train", "val")}
    return found | {"class_names.txt": "\n".join(CLASSES).encode(), "fold_indices.txt": b"0 1 2\n"}


def archive(root, **replaced):
    path = root / "stl10_binary.tar.gz"
    kept = {f"stl10_binary/{name}": data for name, data in (files() | replaced).items() if data is not None}
    path.write_bytes(gzip.compress(tar_bytes(kept), 1))
    return path


def directory(root):
    (root / "stl10_binary").mkdir()
    for name, data in files().items():
        (root / "stl10_binary" / name).write_bytes(data)
    return root


@pytest.mark.parametrize("make", [archive, directory])
def test_every_picture_comes_back_with_its_label(make, tmp_path, cli):
    (tmp_path / "src").mkdir()
    out = tmp_path / "out"
    built = cli("build", "stl10", "--src", make(tmp_path / "src"), "--out", out, "--workers", 1)
    assert built.code == 0, built.err
    assert not (out / ".unpacked").exists()
    assert manifest.load(out).classes == CLASSES
    for split, count in COUNTS.items():
        samples = stored(out, split)
        assert len(samples) == count
        for row in range(count):
            label, data = samples[f"{STEMS[split]}_X.bin/{row}"]
            assert label == (-1 if split == "unlabeled" else labels(split)[row] - 1)
            np.testing.assert_array_equal(pixels_of(data), images(split)[row])
    assert is_trainable(out, ("train", "unlabeled"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train_y.bin", b"\1\2", "train_X.bin has 165,888 bytes, which is not 2 images"),
        ("test_X.bin", bytes(99), "test_X.bin has 99 bytes, which is not 5 images"),
        ("unlabeled_X.bin", None, "no unlabeled_X.bin in it"),
        ("class_names.txt", bytes(20_000), "longer than published"),
    ],
)
def test_damaged_archives_are_told_in_one_line(tmp_path, name, data, message):
    with pytest.raises(UserError, match=message):
        stl10.source(archive(tmp_path, **{name: data}))


def test_a_label_that_is_none_is_rejected(tmp_path, quietly):
    path = archive(tmp_path, **{"test_y.bin": bytes([1, 2, 0, 11, 10])})
    quietly(stl10.source(path), tmp_path / "out", max_rejected=1.0)
    assert rejected(tmp_path / "out") == {
        f"test_X.bin/{row}": f"its label {label} is none of 1 to 10" for row, label in ((2, 0), (3, 11))
    }


def test_src_without_the_archive_says_what_to_fetch(tmp_path):
    with pytest.raises(UsageError, match=r"no stl10_binary\.tar\.gz here"):
        stl10.source(tmp_path)
