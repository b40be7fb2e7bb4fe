"""ImageNet from its archives, from folders and from parquet files: the same images with the same labels, and every fault told."""

import csv
import gzip
import io
import re
import sys
import tarfile

import pytest

from amdim.errors import UsageError, UserError
from amdim.shards.sources import imagenet
from amdim.shards.sources.base import Encoding
from amdim.shards.sources.imagenet_devkit import _check_expansion
from tests.shards import archives
from tests.shards.archives import IDS, WNIDS, WORDS, imagenet_train, imagenet_val, jpeg, tar_bytes, write_parquet
from tests.shards.loading import is_trainable, rejected, stored

KEEP = Encoding(256, 90)
TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
NAMES = tuple(f"{wnid} {WORDS[wnid]}" for wnid in WNIDS)


def flat_with_kit(root):
    archives.imagenet_folders(root, nested=False)
    (root / DEVKIT).write_bytes(archives.devkit())


def flat_with_kaggles_tables(root):
    archives.imagenet_folders(root / "ILSVRC/Data/CLS-LOC", nested=False)
    archives.kaggle_tables(root)


FORMS = {
    "archives": (archives.imagenet_archives, NAMES, "the official archives, 3 classes"),
    "class folders": (lambda root: archives.imagenet_folders(root, nested=True), WNIDS, "class folders in .*/train, 3 classes"),
    "flat, kit": (flat_with_kit, NAMES, "labels of val from .*t12.tar.gz"),
    "flat, Kaggle": (flat_with_kaggles_tables, NAMES, "labels of val from .*LOC_val_solution.csv"),
    "parquet": (archives.imagenet_parquet, tuple(WORDS[wnid] for wnid in WNIDS), "3 parquet files"),
}


def by_image(found):
    """Labels by the encoded image, which is what all forms have in common."""
    return {data: label for label, data in found.values()}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_recognised_built_and_trainable(form, tmp_path, cli):
    make, names, note = FORMS[form]
    src, out = tmp_path / "src", tmp_path / "out"
    src.mkdir()
    make(src)
    before = sorted(src.rglob("*"))
    source = imagenet.source(src, KEEP)
    assert source.classes == names
    built = cli("build", "imagenet", "--src", src, "--out", out, "--workers", 1)
    assert built.code == 0, built.err
    assert re.search(note, built.out.replace("\n", " ")), built.out
    assert sorted(src.rglob("*")) == before, "something was written into the source"
    assert not (out / ".unpacked").exists()
    assert by_image(stored(out)) == {data: label for label, wnid in enumerate(WNIDS) for data in imagenet_train()[wnid].values()}
    assert by_image(stored(out, "val")) == {data: WNIDS.index(wnid) for wnid, data in imagenet_val().values()}
    assert is_trainable(out)


def test_nothing_recognised_says_what_was_looked_for(tmp_path):
    (tmp_path / "train/cats").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"ILSVRC2012_img_train\.tar.*train/n01440764/.*data/train-\*\.parquet"):
        imagenet.source(tmp_path, KEEP)
    with pytest.raises(UsageError, match="no such directory"):
        imagenet.source(tmp_path / "none", KEEP)


@pytest.mark.parametrize("name", [VAL, DEVKIT])
def test_an_archive_that_is_missing_is_named(tmp_path, name):
    (archives.imagenet_archives(tmp_path) / name).unlink()
    with pytest.raises(UsageError, match=f"{name}: missing"):
        imagenet.source(tmp_path, KEEP)


def test_flat_validation_images_need_labels(tmp_path):
    archives.imagenet_folders(tmp_path, nested=False)
    with pytest.raises(UsageError, match=r"put ILSVRC2012_devkit_t12\.tar\.gz or Kaggle's LOC_val_solution\.csv"):
        imagenet.source(tmp_path, KEEP)


@pytest.mark.parametrize("name", [TRAIN, VAL])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_cut_archive_is_refused(tmp_path, name, keep):
    path = archives.imagenet_archives(tmp_path) / name
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(UserError, match=f"{name}.*(damaged|cut short).*fetch it again"):
        imagenet.source(tmp_path, KEEP)


def test_a_compressed_or_foreign_train_archive_is_refused(tmp_path):
    path = archives.imagenet_archives(tmp_path) / TRAIN
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(UsageError, match="gunzip"):
        imagenet.source(tmp_path, KEEP)
    path.write_bytes(tar_bytes({"../n01440764.tar": b""}))
    with pytest.raises(UserError, match="where only archives such as"):
        imagenet.source(tmp_path, KEEP)


@pytest.mark.parametrize(
    ("kit", "message"),
    [
        (gzip.compress(bytes(2**27)), "unpacks to more than 67 MB"),
        (gzip.compress(tar_bytes({"readme": b""})), "no ILSVRC2012_devkit_t12/data/meta.mat in it"),
        (b"not a kit", "damaged"),
        (archives.devkit(meta=b"not a matrix"), "meta.mat is damaged"),
        (archives.devkit(meta=archives.meta_mat()[:-40]), "meta.mat is damaged"),
        (archives.devkit(truth=b"1\n2\nthree\n"), "ground_truth.txt is damaged"),
        (archives.devkit(truth=b"1\n2\n4\n"), "ground_truth.txt is damaged"),
    ],
    ids=["bomb", "empty", "text", "meta text", "meta cut", "truth text", "truth of no class"],
)
def test_a_kit_that_is_none_is_refused(tmp_path, kit, message):
    (archives.imagenet_archives(tmp_path) / DEVKIT).write_bytes(kit)
    with pytest.raises(UserError, match=message):
        imagenet.source(tmp_path, KEEP)


def test_a_matrix_that_unpacks_to_gigabytes_is_not_unpacked():
    import zlib

    packed = zlib.compress(bytes(2**27))
    with pytest.raises(ValueError, match="more than 67 MB"):
        _check_expansion(bytes(126) + b"IM" + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)


def test_members_without_label_or_image_are_rejected_each_with_its_reason(tmp_path, quietly):
    archives.imagenet_archives(tmp_path / "src")
    val = {f"{stem}.JPEG": data for stem, (_, data) in imagenet_val().items()}
    val.pop("ILSVRC2012_val_00000002.JPEG")
    val |= {"ILSVRC2012_val_00000099.JPEG": jpeg(1), "ILSVRC2012_val_00000001.JPEG": b"<html>"}
    (tmp_path / "src" / VAL).write_bytes(tar_bytes(val))
    source = imagenet.source(tmp_path / "src", KEEP)
    built = quietly(source, tmp_path / "out", max_rejected=1.0)
    assert rejected(tmp_path / "out") == {
        "val/ILSVRC2012_val_00000001.JPEG": "not an image",
        "val/ILSVRC2012_val_00000002": f"labelled, but not in {VAL}",
        "val/ILSVRC2012_val_00000099.JPEG": "no row in the labels",
    }
    accepted = sum(split.samples for split in built.manifest.splits.values())
    assert accepted + built.reasons.total() == sum(map(len, source.splits.values()))


def test_kaggles_table_with_odd_rows(tmp_path, quietly):
    src = archives.imagenet_folders(tmp_path / "src", nested=False)
    archives.kaggle_tables(src)
    rows = list(csv.reader((src / "LOC_val_solution.csv").open()))
    missing, wrong = rows.pop(1)[0], rows[1][0]
    rows[1][1] = "n09999999 1 2 3 4"
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    (src / "LOC_val_solution.csv").write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    (src / "val/notes.txt").touch()
    source = imagenet.source(src, KEEP)
    built = quietly(source, tmp_path / "out", max_rejected=1.0)
    assert source.ignored.total() == 1
    assert rejected(tmp_path / "out") == {
        f"val/{missing}.JPEG": "no row in the labels",
        f"val/{wrong}.JPEG": "its class n09999999 has no training images",
    }
    assert built.manifest.splits["val"].labelled == 4


def test_other_images_are_another_set(tmp_path):
    first = imagenet.source(archives.imagenet_archives(tmp_path / "a"), KEEP).recipe
    assert imagenet.source(archives.imagenet_archives(tmp_path / "b"), KEEP).recipe == first
    (tmp_path / "b" / VAL).write_bytes(tar_bytes({f"{stem}.JPEG": jpeg(7) for stem in imagenet_val()}))
    assert imagenet.source(tmp_path / "b", KEEP).recipe != first


@pytest.mark.parametrize("image", ["train/n01440764", "val"])
def test_another_image_under_the_same_name_is_another_set(tmp_path, image):
    first = imagenet.source(archives.imagenet_folders(tmp_path, nested=True), KEEP).recipe
    path = next((tmp_path / image).rglob("*.JPEG"))
    path.write_bytes(path.read_bytes() + b"more")
    assert imagenet.source(tmp_path, KEEP).recipe != first


def test_an_image_that_changes_after_it_was_listed_is_rejected(tmp_path, quietly):
    source = imagenet.source(archives.imagenet_folders(tmp_path / "src", nested=True), KEEP)
    path = next((tmp_path / "src/train").rglob("*.JPEG"))
    path.write_bytes(path.read_bytes() + b"more")
    quietly(source, tmp_path / "out", max_rejected=1.0)
    (reason,) = rejected(tmp_path / "out").values()
    assert reason.startswith("changed: ")


def test_numbers_of_the_kit_are_not_labels():
    assert [IDS[wnid] - 1 for wnid in WNIDS] != [0, 1, 2], "the miniature must tell the two apart"


def test_parquet_rows_without_image_or_with_a_strange_label(tmp_path, quietly):
    archives.imagenet_parquet(tmp_path / "src")
    rows = [(jpeg(1), 0, "a"), (None, 1, "b"), (b"text", 2, "c"), (jpeg(2), 3, "d"), (jpeg(3), -1, "e")]
    write_parquet(tmp_path / "src/data/validation-00000-of-00001.parquet", rows)
    quietly(imagenet.source(tmp_path / "src", KEEP), tmp_path / "out", max_rejected=1.0)
    name = "data/validation-00000-of-00001.parquet"
    assert rejected(tmp_path / "out") == {
        f"{name}/1": "zero bytes",
        f"{name}/2": "not an image",
        f"{name}/3": "its label 3 is none of 3 classes",
        f"{name}/4": "its label -1 is none of 3 classes",
    }


def test_parquet_without_names_has_the_documented_thousand(tmp_path):
    source = imagenet.source(archives.imagenet_parquet(tmp_path, metadata=False), KEEP)
    assert source.classes == tuple(map(str, range(1000)))


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda _: b"text", lambda _: b""])
def test_a_damaged_parquet_file_is_told_in_one_line(tmp_path, damage):
    path = archives.imagenet_parquet(tmp_path) / "data/train-00001-of-00002.parquet"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path}: no readable parquet file") as error:
        imagenet.source(tmp_path, KEEP)
    assert "\n" not in str(error.value)


def test_parquet_without_validation_files(tmp_path):
    next(archives.imagenet_parquet(tmp_path).glob("data/validation-*")).unlink()
    with pytest.raises(UsageError, match=r"validation-\*\.parquet is missing"):
        imagenet.source(tmp_path, KEEP)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    archives.imagenet_parquet(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pip install pyarrow"):
        imagenet.source(tmp_path, KEEP)


def test_copied_parquet_images_are_used_again(tmp_path):
    source = imagenet.source(archives.imagenet_parquet(tmp_path / "src"), KEEP)
    (tmp_path / "out").mkdir()
    source.unpack(tmp_path / "out/.unpacked")
    copies = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/.unpacked").iterdir()}
    read = source.unpack(tmp_path / "out/.unpacked")
    assert {path: path.stat().st_mtime_ns for path in copies} == copies
    assert read(source.splits["train"][1]).image in imagenet_train()["n01440764"].values()


def test_a_parquet_file_that_was_replaced_is_another_set_and_copied_again(tmp_path):
    src = archives.imagenet_parquet(tmp_path / "src")
    first = imagenet.source(src, KEEP)
    (tmp_path / "out").mkdir()
    first.unpack(tmp_path / "out/.unpacked")
    copies = {path.name for path in (tmp_path / "out/.unpacked").iterdir()}
    path = sorted((src / "data").glob("train-*.parquet"))[0]
    write_parquet(path, [(jpeg(50 + i), 0, "other") for i in range(6)])
    second = imagenet.source(src, KEEP)
    assert second.recipe != first.recipe
    second.unpack(tmp_path / "out/.unpacked")
    now = {path.name for path in (tmp_path / "out/.unpacked").iterdir()}
    assert len(now) == len(copies)
    assert len(now - copies) == 2, "the copy of the file that was replaced, and where its images end"


def test_folders_count_where_an_archive_is_gone(tmp_path):
    archives.imagenet_folders(archives.imagenet_archives(tmp_path), nested=True)
    assert "the official archives" in imagenet.source(tmp_path, KEEP).note
    (tmp_path / VAL).unlink()
    assert "class folders" in imagenet.source(tmp_path, KEEP).note


def test_an_unpacked_kit_will_do_beside_the_archives(tmp_path):
    whole = imagenet.source(archives.imagenet_archives(tmp_path), KEEP)
    with tarfile.open(tmp_path / DEVKIT) as kit:
        kit.extractall(tmp_path, filter="data")
    (tmp_path / DEVKIT).unlink()
    assert imagenet.source(tmp_path, KEEP).recipe == whole.recipe
