"""CIFAR from its binary and its Python archives: pixel for pixel, and no pickle may do more than hold data."""

import gzip
import io
import os
import pickle
import pickletools
import tarfile

import numpy as np
import pytest

from amdim.errors import UsageError, UserError
from amdim.shards.sources import cifar, cifar_pickle
from tests.shards.archives import pixels, planes, python2_pickle, tar_bytes
from tests.shards.loading import is_trainable, pixels_of, rejected, stored

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HUNDRED = tuple(f"class_{number}" for number in range(100))
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


def batch(number, classes):
    """Eight images with labels, and coarse labels that are no fine ones."""
    labels = np.random.default_rng(number).integers(0, classes, 8).astype(np.uint8)
    return pixels(8, 32, number), labels, (labels // 5).astype(np.uint8)


def expected(name, split):
    classes = {"cifar10": 10, "cifar100": 100}[name]
    numbers = {("cifar10", "train"): range(5), ("cifar100", "train"): [0]}.get((name, split), [9])
    return [(images, labels) for images, labels, _ in (batch(number, classes) for number in numbers)]


def binary10():
    def records(number):
        images, labels, _ = batch(number, 10)
        return np.concatenate([labels[:, None], planes(images)], 1).tobytes()

    files = {f"{name}.bin": records(number) for number, name in enumerate(BATCHES)} | {"test_batch.bin": records(9)}
    names = "\n".join((*TEN, "", "")).encode()
    return {
        f"cifar-10-batches-bin/{name}": data
        for name, data in (files | {"batches.meta.txt": names, "readme.html": b"<html>"}).items()
    }


def binary100():
    def records(number):
        images, labels, coarse = batch(number, 100)
        return np.concatenate([coarse[:, None], labels[:, None], planes(images)], 1).tobytes()

    files = {"train.bin": records(0), "test.bin": records(9), "fine_label_names.txt": "\n".join((*HUNDRED, "")).encode()}
    return {f"cifar-100-binary/{name}": data for name, data in (files | {"coarse_label_names.txt": b"fish\n"}).items()}


def python10():
    def dump(number, name):
        images, labels, _ = batch(number, 10)
        kept = {"batch_label": f"batch {number}", "labels": labels.tolist(), "data": planes(images), "filenames": ["x.png"] * 8}
        return python2_pickle(kept)

    files = {name: dump(number, name) for number, name in [*enumerate(BATCHES), (9, "test_batch")]}
    meta = {"num_cases_per_batch": 10000, "label_names": list(TEN), "num_vis": 3072}
    return {f"cifar-10-batches-py/{name}": data for name, data in (files | {"batches.meta": python2_pickle(meta)}).items()}


def python100():
    def dump(number):
        images, labels, coarse = batch(number, 100)
        return python2_pickle({"fine_labels": labels.tolist(), "coarse_labels": coarse.tolist(), "data": planes(images)})

    meta = {"fine_label_names": list(HUNDRED), "coarse_label_names": ["fish"]}
    return {
        f"cifar-100-python/{name}": data for name, data in (("train", dump(0)), ("test", dump(9)), ("meta", python2_pickle(meta)))
    }


FORMS = {
    "cifar-10-binary": ("cifar10", binary10),
    "cifar-10-python": ("cifar10", python10),
    "cifar-100-binary": ("cifar100", binary100),
    "cifar-100-python": ("cifar100", python100),
}


def write(root, form, **replaced):
    """The archive of ``form``; ``replaced`` changes files by their name without directory."""
    root.mkdir(exist_ok=True)
    files = {name: replaced.get(name.rpartition("/")[2], data) for name, data in FORMS[form][1]().items()}
    path = root / f"{form}.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes({name: data for name, data in files.items() if data is not None})))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_picture_comes_back_with_its_label(form, tmp_path, cli):
    name = FORMS[form][0]
    path, out = write(tmp_path, form), tmp_path / "out"
    built = cli("build", name, "--src", path, "--out", out, "--workers", 1)
    assert built.code == 0, built.err
    assert not (out / ".unpacked").exists()
    assert cifar.source(name, path).classes == (TEN if name == "cifar10" else HUNDRED)
    for split in ("train", "val"):
        samples = stored(out, split)
        files = list(dict.fromkeys(key.partition("/")[0] for key in sorted(samples)))
        for file, (images, labels) in zip(files, expected(name, split), strict=True):
            for row in range(8):
                label, data = samples[f"{file}/{row}"]
                assert label == labels[row]
                np.testing.assert_array_equal(pixels_of(data), images[row])
    assert is_trainable(out)


@pytest.mark.parametrize("form", FORMS)
def test_archive_directory_and_unpacked_files_are_the_same_source(form, tmp_path):
    name = FORMS[form][0]
    path = write(tmp_path / "a", form)
    for member, data in FORMS[form][1]().items():
        (tmp_path / "b" / member).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / member).write_bytes(data)
    places = (path, tmp_path / "a", tmp_path / "b", (tmp_path / "b" / member).parent)
    sources = [cifar.source(name, place) for place in places]
    assert len({source.recipe["files"] for source in sources}) == 1
    sample = sources[3].splits["val"][3]
    (tmp_path / "out").mkdir()
    np.testing.assert_array_equal(sources[3].unpack(tmp_path / "out/x")(sample).image, expected(name, "val")[0][0][3])


def test_src_without_an_archive_says_what_to_fetch(tmp_path):
    with pytest.raises(UsageError, match=r"no cifar-10-binary\.tar\.gz or cifar-10-python\.tar\.gz here"):
        cifar.source("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("form", "file", "data", "message"),
    [
        ("cifar-10-binary", "data_batch_3.bin", b"x" * 3072, "no whole number of records"),
        ("cifar-10-binary", "test_batch.bin", b"", "no whole number of records"),
        ("cifar-10-binary", "data_batch_5.bin", None, "no data_batch_5.bin in it"),
        ("cifar-10-binary", "batches.meta.txt", None, "no batches.meta.txt in it"),
        ("cifar-10-binary", "test_batch.bin", bytes(40_000_000), "longer than published"),
        ("cifar-10-python", "test_batch", b"garbage", "no pickle of plain arrays"),
        ("cifar-10-python", "test_batch", python2_pickle([1]), "no dictionary"),
        ("cifar-10-python", "test_batch", python2_pickle({"labels": [1]}), "lacks data or labels"),
        (
            "cifar-10-python",
            "test_batch",
            python2_pickle({"labels": [1], "data": planes(pixels(2, 32, 0))}),
            "1 labels, and pixels",
        ),
        (
            "cifar-10-python",
            "test_batch",
            python2_pickle({"labels": ["a"], "data": planes(pixels(1, 32, 0))}),
            "lacks data or labels",
        ),
    ],
)
def test_damaged_archives_are_told_in_one_line(tmp_path, form, file, data, message):
    path = write(tmp_path, form, **{file: data})
    with pytest.raises(UserError, match=message) as error:
        cifar.source("cifar10", path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_an_archive_that_would_fill_the_disk_is_refused_from_its_header(tmp_path):
    header = tarfile.TarInfo("cifar-10-batches-bin/readme.html")
    header.size = 2**30
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf() + bytes(1024)))
    with pytest.raises(UserError, match=r"readme\.html is longer than published"):
        cifar.source("cifar10", path)


@pytest.mark.parametrize("keep", [0.2, 0.7, 0.98])
def test_a_cut_archive_is_refused(tmp_path, keep):
    path = write(tmp_path, "cifar-10-binary")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(UserError, match="damaged"):
        cifar.source("cifar10", path)


def stop(done):
    raise KeyboardInterrupt


def test_a_build_cut_off_goes_on_to_the_same_bytes(tmp_path, quietly):
    source = cifar.source("cifar10", write(tmp_path, "cifar-10-binary"))
    quietly(source, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        quietly(source, tmp_path / "cut", show=stop)
    assert list((tmp_path / "cut/.unpacked").iterdir())
    quietly(source, tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_label_that_is_none_is_rejected(tmp_path, quietly):
    data = bytearray(binary10()["cifar-10-batches-bin/test_batch.bin"])
    data[3073] = 10
    path = write(tmp_path, "cifar-10-binary", **{"test_batch.bin": bytes(data)})
    quietly(cifar.source("cifar10", path), tmp_path / "out", max_rejected=1.0)
    assert rejected(tmp_path / "out") == {"test_batch.bin/1": "its label 10 is none of 10 classes"}


class Runs:
    """Does something when it is unpickled."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(tmp_path):
    target = str(tmp_path / "executed")
    yield Runs(os.system, f"touch {target}")
    yield Runs(os.mkdir, target)
    yield Runs(eval, f"open({target!r}, 'w')")
    yield Runs(pickle.loads, pickle.dumps(Runs(os.mkdir, target)))
    yield Runs(np.fromfile, "/etc/passwd")
    yield np.array([Runs(os.mkdir, target)], object)
    yield np.zeros(3, np.float64)
    yield np.dtype([("a", "O")])
    yield {1, 2}


def test_a_pickle_cannot_run_or_make_anything_else(tmp_path):
    for value in hostile(tmp_path):
        for protocol in range(6):
            with pytest.raises(ValueError, match="no pickle of plain arrays"):
                cifar_pickle.load(pickle.dumps({"data": value}, protocol))
    assert not list(tmp_path.iterdir())


def test_an_array_stored_by_columns_is_the_same_array():
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    loaded = cifar_pickle.load(pickle.dumps({"data": np.asfortranarray(values)}, 3))[b"data"]
    assert np.array_equal(loaded.values, values)


def test_a_pickle_is_never_believed_about_sizes():
    data = python2_pickle({"data": np.zeros((2, 3), np.uint8)})
    shape = pickletools.optimize(data)
    with pytest.raises(ValueError, match="another size than its data"):
        cifar_pickle.load(shape.replace(b"K\x02K\x03\x86", b"K\xffK\xff\x86"))


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_cut_pickle_is_no_dictionary(cut):
    data = python2_pickle({"data": np.zeros((2, 3), np.uint8), "labels": [1, 2]})
    if cut < len(data):
        with pytest.raises(ValueError, match="no pickle"):
            cifar_pickle.load(data[:cut])


def test_pickles_of_either_python_hold_the_same(tmp_path):
    value = {"data": pixels(1, 4, 0), "labels": [1, 2], "names": ["a", b"b"], "none": None, "pair": (1, 2.5)}
    buffers = [python2_pickle(value), *(pickle.dumps(value, protocol) for protocol in (3, 4))]
    for data in buffers:
        found = cifar_pickle.load(io.BytesIO(data).read())
        np.testing.assert_array_equal(found[b"data"].values, value["data"])
        assert (found[b"labels"], found[b"none"], found[b"pair"]) == ([1, 2], None, (1, 2.5))
