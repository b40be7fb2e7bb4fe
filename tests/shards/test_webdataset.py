"""Tars that exist already: indexed without a byte changed, or written anew; what cannot be used is told, and the rest trains."""

import errno
import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import webdataset as published
from PIL import Image

from amdim.errors import UsageError
from amdim.shards import build, index, manifest
from amdim.shards.sources import registry
from amdim.shards.verify import verify
from tests.shards.archives import jpeg, tar_bytes
from tests.shards.loading import is_trainable, stored


def encoded(kind, seed=0, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg(seed))).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def train_files(start=0, count=8):
    """Samples as several writers make them: all image formats, class in cls or json, other members beside them."""
    kinds = [("jpg", "JPEG"), ("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("JPG", "JPEG")]
    files = {}
    for n in range(start, start + count):
        suffix, kind = kinds[n % 5]
        key = f"folder.v1/{n:05d}"
        files[f"{key}.{suffix}"] = encoded(kind, n)
        if n % 2:
            files[f"{key}.cls"] = f"{n % 3}\n".encode()
        else:
            files[f"{key}.json"] = json.dumps({"caption": "a thing", "label": n % 3}).encode()
        files[f"{key}.txt"] = b"a thing"
    return files


def write(src, **tars):
    src.mkdir(exist_ok=True)
    for name, files in tars.items():
        (src / f"{name}.tar").write_bytes(tar_bytes(files))
    return src


@pytest.fixture
def tars(tmp_path):
    return write(
        tmp_path / "tars",
        **{"set-train-000000": train_files(), "set-train-000001": train_files(8), "set-val-000000": train_files(16, 4)},
    )


def tar_files(src):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in src.glob("*.tar")}


def test_tars_are_indexed_where_they_lie_and_trainable(tars, cli):
    before = tar_files(tars)
    built = cli("build", "webdataset", "--src", tars, "--workers", 2)
    assert built.code == 0, built.err
    assert tar_files(tars) == before
    found = manifest.load(tars)
    assert found.classes == ("0", "1", "2")
    assert {split: (part.samples, part.labelled) for split, part in found.splits.items()} == {"train": (16, 16), "val": (4, 4)}
    rows = np.concatenate([index.load_index(path) for path in sorted(tars.glob("set-train-*.npy"))])
    assert rows["label"].tolist() == [n % 3 for n in range(16)]
    assert is_trainable(tars)
    assert cli("verify", tars).code == cli("info", tars).code == cli("preview", tars).code == 0
    again = cli("build", "webdataset", "--src", tars, "--out", tars)
    assert again.code == 0
    assert "already indexed" in again.out
    assert cli("build", "webdataset", "--src", tars, "--overwrite", "--workers", 1).code == 0
    assert tar_files(tars) == before


def test_images_of_the_published_reader_are_those_of_the_index(tars, cli):
    assert cli("build", "webdataset", "--src", tars, "--workers", 1).code == 0
    tar = tars / "set-train-000000.tar"
    data = tar.read_bytes()
    rows = index.load_index(tar.with_suffix(".npy"))
    samples = list(published.WebDataset(str(tar), shardshuffle=False))
    for sample, row, entry in zip(samples, rows, index.read_idx(tar.with_suffix(".idx")), strict=True):
        (image,) = (sample[key] for key in ("jpg", "jpeg", "png", "webp") if key in sample)
        assert data[row["offset"] : row["offset"] + row["size"]] == image
        assert index.key(entry) == sample["__key__"]


def test_rewriting_shuffles_and_resizes_into_shards_of_our_own(tars, tmp_path, cli):
    before, out = tar_files(tars), tmp_path / "out"
    built = cli("build", "webdataset", "--src", tars, "--out", out, "--rewrite", "--size", 16, "--workers", 1)
    assert built.code == 0, built.err
    assert tar_files(tars) == before
    samples = stored(out)
    assert {path: label for path, (label, _) in samples.items()} == {
        f"set-train-{n // 8:06d}.tar/folder.v1/{n:05d}": n % 3 for n in range(16)
    }
    assert list(samples) != sorted(samples)
    assert all(min(Image.open(io.BytesIO(data)).size) == 16 for _, data in samples.values())
    assert is_trainable(out)


def transparent():
    image = Image.open(io.BytesIO(jpeg(4))).convert("RGBA")
    image.putalpha(128)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


ODD = {
    "cut.jpg": (jpeg(1, 300, 200)[:-500], "damaged"),
    "empty.jpg": (b"", "zero bytes"),
    "text.png": (b"not an image", "not an image"),
    "turned.jpg": (encoded("JPEG", exif=turned()), "it would have to be encoded anew"),
    "alpha.png": (transparent(), "it would have to be encoded anew"),
    "cmyk.jpg": (encoded("JPEG", mode="CMYK"), "it would have to be encoded anew"),
    "moving.webp": (
        encoded("WEBP", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
        "it would have to be encoded anew",
    ),
    "a blank.jpg": (jpeg(2), "a blank or the like in its name"),
    "a\nline.jpg": (jpeg(2), "a blank or the like in its name"),
    "../../out.jpg": (jpeg(2), "a path that leads out"),
    "alone.txt": (b"no image", "no image among its members"),
    "word.jpg": (jpeg(3), "its label is no number"),
    "minus.jpg": (jpeg(3), "its label is out of range: -7"),
    "huge.jpg": (jpeg(3), "its label is out of range: 2000000000"),
}
EXTRA = {"word.cls": b"cat", "minus.json": b'{"label": -7}', "huge.cls": b"2000000000"}


@pytest.mark.parametrize("rewrite", [False, True])
def test_what_cannot_be_used_is_rejected_and_the_rest_is_whole(tmp_path, cli, rewrite):
    files = train_files() | {name: data for name, (data, _) in ODD.items()} | EXTRA
    src = write(tmp_path / "tars", train=files)
    with tarfile.open(src / "train-2.tar", "w") as archive:
        for name, data in (("same.jpg", jpeg(8)), ("good.jpg", jpeg(9)), ("same.jpg", jpeg(10))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    out = tmp_path / "out" if rewrite else src
    words = ["--rewrite", "--out", out] if rewrite else []
    built = cli("build", "webdataset", "--src", src, "--max-rejected", 1, "--workers", 1, *words)
    assert built.code == 0, built.err
    lines = [json.loads(line) for line in (out / build.REJECTED).read_text().splitlines()]
    reasons = {line["path"]: line["reason"] for line in lines}
    mended = ("it would have to be encoded anew", "a blank or the like in its name") if rewrite else ()
    expected = {f"train.tar/{name.rpartition('.')[0]}": reason for name, (_, reason) in ODD.items() if reason not in mended}
    expected |= {"train-2.tar/same": "its key is there twice", "train-2.tar/link": "a link in the archive"}
    assert reasons.keys() == expected.keys()
    assert all(reasons[path].startswith(reason) for path, reason in expected.items())
    listed = sum(len(index.scan_any(path)) for path in src.glob("*.tar"))
    assert manifest.load(out).splits["train"].samples + manifest.load(out).rejected == listed
    assert manifest.load(out).rejected == len(lines)
    assert verify(out, manifest.load(out), fast=False, workers=1, show=lambda _: None) == []
    assert not (tmp_path.parent / "out.jpg").exists()


def test_damage_that_comes_later_is_found(tars, cli):
    assert cli("build", "webdataset", "--src", tars, "--workers", 1).code == 0
    path = tars / "set-train-000001.tar"
    row = index.load_index(path.with_suffix(".npy"))[3]
    data = bytearray(path.read_bytes())
    data[row["offset"] + row["size"] // 2] ^= 1
    path.write_bytes(data)
    outcome = cli("verify", tars, "--fast")
    assert outcome.code == 1
    assert "set-train-000001.tar, key folder.v1/00011: the image has changed" in outcome.out
    assert f"SRC={tars}" in outcome.err


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_cut_tar_is_refused(tars, cli, keep):
    path = tars / "set-val-000000.tar"
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[: int(len(whole) * keep)])
    outcome = cli("build", "webdataset", "--src", tars, "--workers", 1)
    assert outcome.code == 1
    assert "set-val-000000.tar: " in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tars / manifest.FILE).exists()


def test_names_of_classes_come_from_a_file(tars, cli):
    (tars / "classes.txt").write_text("\ufeffred\ngreen\nblue\nunseen\n")
    assert cli("build", "webdataset", "--src", tars, "--workers", 1).code == 0
    assert manifest.load(tars).classes == ("red", "green", "blue", "unseen")
    (tars / "classes.txt").write_text("red\ngreen\n")
    outcome = cli("build", "webdataset", "--src", tars, "--workers", 1, "--overwrite")
    assert outcome.code == 1
    assert "2 names, but a label is 2" in outcome.err


def test_tars_without_labels_are_unlabelled(tmp_path, cli):
    src = write(tmp_path / "tars", **{"00000": {f"{n}.jpg": jpeg(n) for n in range(4)}})
    assert cli("build", "webdataset", "--src", src, "--workers", 1).code == 0
    found = manifest.load(src)
    assert (found.classes, found.splits["train"].labelled) == ((), 0)
    assert is_trainable(src)


def test_tars_sorted_by_class_get_a_warning(tmp_path, cli):
    files = {}
    for n in range(12):
        files |= {f"{n:02d}.jpg": jpeg(n), f"{n:02d}.cls": str(n // 4).encode()}
    src = write(tmp_path / "tars", train=files)
    assert "sorted by class" in cli("build", "webdataset", "--src", src, "--workers", 1).out


def test_names_tell_the_split(tmp_path, cli):
    names = ("a-train-0", "b-valid-1", "c_test_2", "d-unlabeled-3", "latest-evaluation")
    src = write(tmp_path / "tars", **{name: {f"{n}.jpg": jpeg(n) for n in range(4)} for name in names})
    assert cli("build", "webdataset", "--src", src, "--workers", 1).code == 0
    found = {split: [shard.file for shard in part.shards] for split, part in manifest.load(src).splits.items()}
    assert found == {
        "train": ["a-train-0.tar", "latest-evaluation.tar"],
        "val": ["b-valid-1.tar"],
        "test": ["c_test_2.tar"],
        "unlabeled": ["d-unlabeled-3.tar"],
    }


def test_no_build_removes_tars_that_were_only_indexed(tmp_path, cli, quietly):
    src = write(tmp_path / "tars", **{"train-00000": train_files()})
    assert cli("build", "webdataset", "--src", src, "--workers", 1).code == 0
    before = tar_files(src)
    with pytest.raises(UsageError, match="not this program's"):
        quietly(registry.source("shapes", registry.Options(seed=0)), src, overwrite=True)
    (src / manifest.FILE).write_bytes((src / manifest.FILE).read_bytes()[:-50])
    with pytest.raises(UsageError, match="not this program's"):
        quietly(registry.source("shapes", registry.Options(seed=0)), src, overwrite=True)
    assert tar_files(src) == before


def test_wrong_requests_are_one_line(tars, tmp_path, cli, shapes_set):
    (tmp_path / "empty").mkdir()
    cases = [
        (("--src", tars, "--size", 64), "--size changes what is in the tars"),
        (("--src", tars, "--unlabeled"), "--unlabeled: tars are of the split that their names say; leave it out"),
        (("--src", tars, "--val", 0.2), "--val: tars are of the split that their names say"),
        (("--src", tars, "--out", tmp_path / "x"), "lies beside them"),
        (("--src", tmp_path / "none"), "no such directory"),
        (("--src", tmp_path / "empty"), "no tars to train on"),
        (("--src", tmp_path / "empty", "--rewrite"), "no tars to train on"),
        (("--src", shapes_set), "a finished set of 'shapes' already"),
        ((), "webdataset needs --src"),
    ]
    for words, message in cases:
        outcome = cli("build", "webdataset", *words)
        assert (outcome.code, message in outcome.err, outcome.err.count("\n")) == (2, True, 1), outcome
    outcome = cli("build", "shapes", "--rewrite", "--out", tmp_path / "x")
    assert "--rewrite makes no sense for shapes" in outcome.err


def test_changed_tars_are_not_taken_for_the_indexed_ones(tars, cli):
    assert cli("build", "webdataset", "--src", tars, "--workers", 1).code == 0
    write(tars, **{"set-train-000002": train_files(40)})
    outcome = cli("build", "webdataset", "--src", tars, "--workers", 1)
    assert outcome.code == 2
    assert "have changed since they were indexed" in outcome.err
    assert cli("build", "webdataset", "--src", tars, "--workers", 1, "--overwrite").code == 0
    assert manifest.load(tars).splits["train"].samples == 24


def test_tars_that_are_compressed_or_elsewhere_are_named(cli, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/train-00000.tar.gz").touch()
    outcome = cli("build", "webdataset", "--src", tmp_path / "a")
    assert (outcome.code, "train-00000.tar.gz is compressed" in outcome.err) == (2, True)
    (tmp_path / "b/below").mkdir(parents=True)
    (tmp_path / "b/below/train-00000.tar").touch()
    outcome = cli("build", "webdataset", "--src", tmp_path / "b")
    assert (outcome.code, f"but in {tmp_path / 'b/below'}" in outcome.err) == (2, True)
    (tmp_path / "a/train-00000.tar").write_bytes(gzip.compress(b"x"))
    outcome = cli("build", "webdataset", "--src", tmp_path / "a")
    assert (outcome.code, "gunzip" in outcome.err) == (2, True)


def test_a_full_disk_while_indexing_is_one_line_and_leaves_no_manifest(tars, cli, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("amdim.shards.build.save_rejections", fail)
        outcome = cli("build", "webdataset", "--src", tars, "--workers", 1)
    assert (outcome.code, "the disk is full" in outcome.err) == (1, True)
    assert not (tars / manifest.FILE).exists()
    assert cli("build", "webdataset", "--src", tars, "--workers", 1).code == 0
