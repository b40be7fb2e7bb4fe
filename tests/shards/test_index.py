"""The index against the standard library's tar reader, DALI's own reader and webdataset's."""

import tarfile
from io import BytesIO

import numpy as np
import pytest
import webdataset
from nvidia.dali import fn, pipeline_def
from PIL import Image

from amdim.errors import UserError
from amdim.shards import index
from amdim.shards.images.encode import encode_png
from amdim.shards.sources.base import Rejected


def contents(tar):
    with tarfile.open(tar) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_rows_give_the_bytes_labels_and_sizes_of_the_tar(shapes_set):
    for tar in sorted(shapes_set.glob("*.tar")):
        members, raw = contents(tar), tar.read_bytes()
        rows = index.load_index(tar.with_suffix(".npy"))
        masks = index.mask_spans(tar.with_suffix(".idx"))
        assert len(rows) == len(masks) == len(members) / 4
        for number, (row, (offset, size)) in enumerate(zip(rows, masks, strict=True)):
            key = index.key_of(tar.with_suffix(".idx"), number)
            image = members[f"{key}.png"]
            assert raw[row["offset"] : row["offset"] + row["size"]] == image
            assert raw[offset : offset + size] == members[f"{key}.mask.png"]
            assert row["label"] == int(members[f"{key}.cls"])
            assert (row["width"], row["height"]) == Image.open(BytesIO(image)).size


def test_dali_reads_the_set_through_our_idx(shapes_set):
    tar = shapes_set / "val-00000.tar"
    members = contents(tar)

    @pipeline_def(batch_size=40, num_threads=1, device_id=None)
    def graph():
        paths = {"paths": [str(tar)], "index_paths": [str(tar.with_suffix(".idx"))]}
        return tuple(fn.readers.webdataset(**paths, ext=["png", "cls", "mask.png"], missing_component_behavior="error"))

    images, labels, masks = graph().run()
    keys = sorted({name.partition(".")[0] for name in members})
    assert len(keys) == 40
    for number, key in enumerate(keys):
        assert bytes(images.at(number)) == members[f"{key}.png"]
        assert bytes(labels.at(number)) == members[f"{key}.cls"]
        assert bytes(masks.at(number)) == members[f"{key}.mask.png"]


def test_webdataset_reads_the_set(shapes_set):
    tar = shapes_set / "val-00000.tar"
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    rows = index.load_index(tar.with_suffix(".npy"))
    assert [int(sample["cls"]) for sample in samples] == rows["label"].tolist()
    assert {"png", "mask.png", "json", "cls"} <= samples[0].keys()


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["ustar", "gnu", "pax"])
def test_long_names_have_right_offsets(tmp_path, kind):
    """The shipped indexer points at header bytes here."""
    tar, image = tmp_path / "long.tar", encode_png(np.full((3, 5), 7, np.uint8))
    name = "d" * 60 + "/" + "k" * 90
    with tarfile.open(tar, "w", format=kind) as archive:
        header = tarfile.TarInfo(f"{name}.png")
        header.size = len(image)
        archive.addfile(header, BytesIO(image))
    index.write_index(tar)
    (row,) = index.load_index(tar.with_suffix(".npy"))
    assert tar.read_bytes()[row["offset"] :][: row["size"]] == image
    assert (row["label"], row["width"], row["height"]) == (-1, 5, 3)
    assert index.key_of(tar.with_suffix(".idx"), 0) == name


def test_what_is_no_index_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.idx").write_text("v1.2 2\npng 512 3 0.png\n")
    (tmp_path / "b.idx").write_text("v1.2 1\npng 512 3\n")
    (tmp_path / "a.npy").write_bytes(b"not NumPy's")
    np.save(tmp_path / "b.npy", np.arange(3))
    np.save(tmp_path / "c.npy", np.array([{}]), allow_pickle=True)
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=path.name):
            (index.load_index if path.suffix == ".npy" else index.read_idx)(path)


def test_a_truncated_tar_is_refused(shapes_set, tmp_path):
    cut = tmp_path / "cut.tar"
    cut.write_bytes((shapes_set / "val-00000.tar").read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"cut\.tar: damaged"):
        index.write_index(cut)
    assert [path.name for path in tmp_path.iterdir()] == ["cut.tar"]


def test_no_index_is_left_where_an_image_is_none(tmp_path):
    tar = tmp_path / "bad.tar"
    with tarfile.open(tar, "w") as archive:
        archive.addfile(tarfile.TarInfo("0.png"))
    with pytest.raises(Rejected, match="zero bytes"):
        index.write_index(tar)
    assert not tar.with_suffix(".npy").exists()
