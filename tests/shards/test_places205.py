"""Places205 from a folder and from a tar: labels by its two tables, and every odd row told."""

import gzip

import pytest

from amdim.errors import UsageError
from amdim.shards.sources import places205
from amdim.shards.sources.base import Encoding
from tests.shards.archives import jpeg, tar_bytes
from tests.shards.loading import is_trainable, rejected, stored

KEEP = Encoding(256, 90)
ROOT = "data/vision/torralba/deeplearning/images256/"
SCENES = {"a/abbey": 0, "a/apartment_building/outdoor": 7, "y/yard": 204}


def images(split):
    """Path to class and image."""
    return {
        f"{folder}/gsun_{split}{n}.jpg": (label, jpeg(50 * label + n + 1000 * (split == "val")))
        for folder, label in SCENES.items()
        for n in range(4)
    }


ALL = images("train") | images("val")


def table(split, end="\n"):
    return "".join(f"{path} {label}{end}" for path, (label, _) in images(split).items()).encode()


def write_tables(src, **replaced):
    src.mkdir(exist_ok=True)
    for split in ("train", "val"):
        (src / f"{split}_places205.csv").write_bytes(replaced.get(split, table(split)))
    return src


def as_folder(src, root=ROOT):
    for path, (_, data) in ALL.items():
        (src / root / path).parent.mkdir(parents=True, exist_ok=True)
        (src / root / path).write_bytes(data)
    return write_tables(src)


def as_tar(src, extra=None):
    files = {ROOT + path: data for path, (_, data) in ALL.items()} | (extra or {})
    write_tables(src)
    (src / "imagesPlaces205_resize.tar").write_bytes(tar_bytes(files))
    return src


def found(out, split):
    return {path.removeprefix(ROOT): sample for path, sample in stored(out, split).items()}


@pytest.mark.parametrize("make", [as_folder, as_tar, lambda src: as_folder(src, "")], ids=["folder", "tar", "bare folder"])
def test_every_form_is_built_and_trainable(make, tmp_path, cli):
    src, out = make(tmp_path / "src"), tmp_path / "out"
    assert len(places205.source(src, KEEP).classes) == 205
    assert places205.source(src, KEEP).classes[7] == "apartment_building/outdoor"
    built = cli("build", "places205", "--src", src, "--out", out, "--workers", 1)
    assert built.code == 0, built.err
    assert "places205: images in" in built.out
    for split in ("train", "val"):
        assert found(out, split) == images(split)
    assert is_trainable(out)


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbf" + table("train", "\r\n"), table("train").replace(b" ", b","), b"\n\n" + table("train")]
)
def test_byte_order_marks_line_ends_commas_and_blank_lines(tmp_path, text):
    src = write_tables(as_tar(tmp_path / "src"), train=text)
    samples = places205.source(src, KEEP).splits["train"]
    assert {sample.path.removeprefix(ROOT): sample.label for sample in samples} == {
        k: label for k, (label, _) in images("train").items()
    }
    assert not any(sample.fault for sample in samples)


ODD_ROWS = {
    "a/abbey/gsun_train1.jpg 0": ("a/abbey/gsun_train1.jpg 205", "its class 205 is none of 0 to 204"),
    "a/abbey/gsun_train2.jpg 0": ("a/abbey/gsun_train2.jpg -1", "its class -1 is none of 0 to 204"),
    "a/abbey/gsun_train3.jpg 0": (
        "a/abbey/gsun_train3.jpg 7",
        "its row says class 7, apartment_building/outdoor, and its folder abbey",
    ),
    "y/yard/gsun_train0.jpg 204": ("y/yard/gsun_train0.jpg", "its row has no class"),
    "y/yard/gsun_train1.jpg 204": ("y/yard/gsun_train1.jpg 204\ny/yard/gsun_train1.jpg 204", "two rows in the tables"),
    "y/yard/gsun_train2.jpg 204": ("y/yard/gsun_train2.jpg x", "its class x is none of 0 to 204"),
    "y/yard/gsun_train3.jpg 204": ("y/yard/gsun_train3.jpg 204\ny/yard/gone.jpg 204", ""),
}


@pytest.mark.parametrize("make", [as_folder, as_tar])
def test_odd_rows_are_rejected_each_with_its_reason(make, tmp_path, quietly):
    text = table("train").decode()
    for row, (replacement, _) in ODD_ROWS.items():
        text = text.replace(f"{row}\n", f"{replacement}\n")
    src = write_tables(make(tmp_path / "src"), train=text.encode())
    source = places205.source(src, KEEP)
    built = quietly(source, tmp_path / "out", max_rejected=1.0)
    reasons = {path.removeprefix(ROOT): reason for path, reason in rejected(tmp_path / "out").items()}
    expected = {row.rpartition(" ")[0]: reason for row, (_, reason) in ODD_ROWS.items() if reason}
    assert reasons == expected | {"y/yard/gone.jpg": "a row in the tables, but no such image"}
    assert sum(split.samples for split in built.manifest.splits.values()) + built.reasons.total() == len(ALL) + 1


def test_a_member_that_leads_out_is_rejected_and_other_files_are_counted(tmp_path, quietly):
    src = as_tar(tmp_path / "src", {f"{ROOT}a/abbey/../../../../../../evil.jpg": b"x", f"{ROOT}notes.txt": b"y"})
    source = places205.source(src, KEEP)
    quietly(source, tmp_path / "out", max_rejected=1.0)
    assert list(rejected(tmp_path / "out").values()) == ["a path that leads out of the archive"]
    assert source.ignored.total() == 1
    assert not list(tmp_path.rglob("evil.jpg"))


def test_what_is_missing_is_named(tmp_path):
    (as_tar(tmp_path / "src") / "val_places205.csv").unlink()
    with pytest.raises(UsageError, match=r"val_places205\.csv: missing"):
        places205.source(tmp_path / "src", KEEP)
    with pytest.raises(UsageError, match="no images"):
        places205.source(write_tables(tmp_path / "empty"), KEEP)
    with pytest.raises(UsageError, match="no such directory"):
        places205.source(tmp_path / "none", KEEP)


def test_the_archive_as_downloaded_says_to_unzip_it(tmp_path):
    path = write_tables(tmp_path / "src") / "imagesPlaces205_resize.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes({"a": b""})))
    with pytest.raises(UsageError, match=f"`gunzip {path}` first"):
        places205.source(tmp_path / "src", KEEP)


def test_a_folder_beside_the_archive_it_came_from_is_read(tmp_path):
    src = as_folder(tmp_path / "src")
    (src / "imagesPlaces205_resize.tar.gz").write_bytes(gzip.compress(tar_bytes({"a": b""})))
    source = places205.source(src, KEEP)
    assert f"images in {src}," in source.note


def test_another_image_under_the_same_name_is_another_set(tmp_path):
    first = places205.source(as_folder(tmp_path), KEEP).recipe
    path = next(tmp_path.rglob("*.jpg"))
    path.write_bytes(path.read_bytes() + b"more")
    assert places205.source(tmp_path, KEEP).recipe != first


def test_images_that_no_table_names_are_passed_over(tmp_path, quietly):
    """The published archive holds those to test on too."""
    src = as_tar(tmp_path / "src", {f"{ROOT}a/abbey/gsun_test{number}.jpg": jpeg(number) for number in range(50)})
    source = places205.source(src, KEEP)
    assert source.ignored == {"in no table": 50}
    assert quietly(source, tmp_path / "out").reasons.total() == 0
