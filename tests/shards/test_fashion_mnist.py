"""Fashion-MNIST: the files are read as published, wherever they come from, and damage is told in a line."""

import gzip
import io
import tarfile
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from amdim.errors import UsageError, UserError
from amdim.shards import index
from amdim.shards.sources import fashion_mnist, published_files

real = pytest.mark.skipif(
    not fashion_mnist.DEBIAN.is_dir(), reason=f"{fashion_mnist.DEBIAN}: absent; apt install dataset-fashion-mnist"
)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


@pytest.fixture
def files(tmp_path):
    """The four files, some gzipped and some plain, with 12 and 5 random pictures."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("t10k", 5)):
        images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_pictures_and_labels_come_back(files, tmp_path, quietly):
    source = fashion_mnist.source(files)
    built = quietly(source, tmp_path / "out")
    assert {name: split.samples for name, split in built.manifest.splits.items()} == {"train": 12, "val": 5}
    pictures = fashion_mnist.load_idx(files / "train-images-idx3-ubyte.gz")
    labels = fashion_mnist.load_idx(files / "train-labels-idx1-ubyte")
    with tarfile.open(tmp_path / "out/train-00000.tar") as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}
    for key in {name.partition(".")[0] for name in found}:
        number = int(found[f"{key}.json"].split(b"train/")[1].split(b'"')[0])
        image = Image.open(io.BytesIO(found[f"{key}.png"]))
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), pictures[number])
        assert int(found[f"{key}.cls"]) == labels[number]


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-9], lambda _: b"", lambda _: b"text", lambda data: data[:40] + b"\xff" * 40 + data[80:]],
    ids=["cut", "empty", "text", "flipped"],
)
def test_damaged_files_are_told_in_one_line(files, damage):
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"):
        path = files / name
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        fashion_mnist.load_idx.cache_clear()
        if name.endswith(".gz") or damage(whole) != whole:
            with pytest.raises(UserError, match=f"{path}: damaged"):
                fashion_mnist.load_idx(path)
        path.write_bytes(whole)


def test_unequal_numbers_of_images_and_labels(files):
    (files / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(4, np.uint8)))
    with pytest.raises(UserError, match="5 images but 4 labels"):
        fashion_mnist.source(files)


def test_a_missing_file_in_src(files):
    (files / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UsageError, match=r"no t10k-labels-idx1-ubyte\.gz here"):
        fashion_mnist.source(files)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Neither Debian's package nor an earlier download."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_offline_says_what_to_do(nowhere, monkeypatch):
    def no_network(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(published_files, "urlopen", no_network)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: no answer.*apt install dataset-fashion-mnist.*SRC="):
        fashion_mnist.source(None)


@real
def test_the_real_set_has_its_published_numbers():
    source = fashion_mnist.source(None)
    for split, count in (("train", 60_000), ("val", 10_000)):
        labels = [sample.label for sample in source.splits[split]]
        assert np.bincount(labels).tolist() == [count // 10] * 10
        assert source.read(source.splits[split][-1]).image.shape == (28, 28)
    assert [source.classes[sample.label] for sample in source.splits["train"][:3]] == ["Ankle boot", "T-shirt/top", "T-shirt/top"]


@real
def test_real_pictures_round_trip(tmp_path, quietly):
    source = fashion_mnist.source(None)
    first = replace(source, splits={"train": source.splits["train"][:200]})
    built = quietly(first, tmp_path)
    tar = tmp_path / built.manifest.splits["train"].shards[0].file
    rows = index.load_index(tar.with_suffix(".npy"))
    with tarfile.open(tar) as archive:
        paths = [archive.extractfile(member).read() for member in archive if member.name.endswith(".json")]
    pictures = fashion_mnist.load_idx(fashion_mnist.DEBIAN / "train-images-idx3-ubyte.gz")
    for row, path in zip(rows, paths, strict=True):
        number = int(path.split(b"train/")[1].split(b'"')[0])
        data = tar.read_bytes()[row["offset"] :][: row["size"]]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pictures[number])
        assert row["label"] == source.splits["train"][number].label
