"""A build writes what its source gives: exactly, in the same bytes wherever and however it runs, and whole or not at all."""

import json
import multiprocessing
import os
import tarfile
from dataclasses import replace
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from amdim.errors import UsageError, UserError
from amdim.fileio import locked
from amdim.shards import manifest
from amdim.shards.permutation import permutation
from amdim.shards.plan import SHARD_BYTES, shard_count
from amdim.shards.shapes import renderer
from amdim.shards.sources.base import Raw, Rejected, Sample, Source


def bytes_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def samples_of(directory, split):
    """path → (label, {suffix: contents}) of a split."""
    found = {}
    for shard in manifest.load(directory).splits[split].shards:
        with tarfile.open(directory / shard.file) as archive:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                found.setdefault((shard.file, key), {})[suffix] = archive.extractfile(member).read()
    return {json.loads(files["json"])["path"]: files for files in found.values()}


def pixels(data):
    return np.asarray(Image.open(BytesIO(data)))


def arrays(sample: Sample) -> Raw:
    """A gray or colour picture of any size, made from the sample's number."""
    rng = np.random.default_rng(int(sample.path))
    shape = (rng.integers(1, 40), rng.integers(1, 40), 3)
    return Raw(rng.integers(0, 256, shape[: 2 + int(sample.path) % 2], np.uint8))


def numbered(count, read=arrays, **splits):
    names = splits or {"train": count}
    return Source("arrays", ("a", "b"), {name: [Sample(str(i), i % 3 - 1) for i in range(n)] for name, n in names.items()}, read)


def test_every_shape_comes_back_pixel_for_pixel(shapes_set):
    for split, count in (("train", 808), ("val", 40)):
        samples = samples_of(shapes_set, split)
        assert len(samples) == count
        for path, files in samples.items():
            params = renderer.draw(0, split, int(path.partition("/")[2]))
            picture, mask = renderer.render(params)
            np.testing.assert_array_equal(pixels(files["png"]), picture)
            np.testing.assert_array_equal(pixels(files["mask.png"]), mask)
            assert int(files["cls"]) == params.label
            assert json.loads(files["json"]) == {"path": path, "width": 64, "height": 64}


def test_every_array_comes_back_pixel_for_pixel(tmp_path, quietly):
    built = quietly(numbered(60), tmp_path)
    samples = samples_of(tmp_path, "train")
    assert len(samples) == 60
    for path, files in samples.items():
        np.testing.assert_array_equal(pixels(files["png"]), arrays(Sample(path)).image)
        assert files.get("cls") == (None if int(path) % 3 == 0 else str(int(path) % 3 - 1).encode())
    assert (built.manifest.splits["train"].samples, built.manifest.splits["train"].labelled) == (60, 40)


def test_mean_and_std_are_those_of_the_training_pixels(tmp_path, quietly):
    built = quietly(numbered(0, train=30, unlabeled=20, val=10), tmp_path)
    images = [arrays(Sample(str(i))).image for i in (*range(30), *range(20))]
    rgb = np.concatenate([np.broadcast_to(im.reshape(*im.shape[:2], -1), (*im.shape[:2], 3)).reshape(-1, 3) for im in images])
    np.testing.assert_allclose(built.manifest.mean, (rgb / 255).mean(0), rtol=1e-12)
    np.testing.assert_allclose(built.manifest.std, (rgb / 255).std(0), rtol=1e-12)


def test_two_workers_write_the_same_bytes_as_one(shapes_set, tmp_path, quietly):
    quietly(renderer.source(0, {"train": 808, "val": 40}), tmp_path, workers=2)
    assert bytes_of(tmp_path) == bytes_of(shapes_set)


def test_another_seed_is_another_order(tmp_path, quietly):
    orders = []
    for seed in (0, 1):
        quietly(numbered(50), tmp_path / str(seed), seed=seed)
        orders.append(list(samples_of(tmp_path / str(seed), "train")))
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != sorted(orders[0])


def test_the_order_is_pinned():
    """If this fails, NumPy has changed its streams, and sets of one seed differ between its releases."""
    assert permutation(0, "train", 8).tolist() == [2, 4, 1, 7, 3, 0, 6, 5]
    assert permutation(1, "val", 8).tolist() == [7, 6, 1, 2, 5, 0, 4, 3]


def test_keys_are_plain_unique_numbers_and_headers_are_fixed(shapes_set):
    names = []
    for tar in sorted(shapes_set.glob("train-*.tar")):
        with tarfile.open(tar) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) == (0, 0, 0, "", "", 0o644)
                names.append(member.name)
    keys = [name.partition(".")[0] for name in names if name.endswith(".cls")]
    assert keys == [f"{number:09d}" for number in range(808)]


def test_shards_are_about_256_mb_and_at_least_eight_to_train_on():
    assert shard_count("train", 800, 1e6) == 8
    assert shard_count("unlabeled", 800, 1e6) == 8
    assert shard_count("train", 799, 1e6) == shard_count("val", 5000, 1e6) == 1
    assert shard_count("train", 10**6, 100 * SHARD_BYTES) == 100


def test_samples_need_not_be_a_list(tmp_path, quietly):
    class Lazy:
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return Sample(str(index), 0)

    quietly(Source("lazy", ("a",), {"train": Lazy()}, arrays), tmp_path)
    assert len(samples_of(tmp_path, "train")) == 5


def faulty(sample: Sample) -> Raw:
    if int(sample.path) % 10 == 0:
        raise Rejected("bad: on purpose")
    return arrays(sample)


def test_rejected_samples_are_absent_and_accounted_for(tmp_path, quietly):
    built = quietly(numbered(50, faulty), tmp_path, max_rejected=0.1, workers=2)
    assert built.manifest.splits["train"].samples + built.reasons.total() == 50
    lines = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert sorted(lines, key=lambda line: int(line["path"])) == [
        {"path": str(number), "reason": "bad: on purpose"} for number in range(0, 50, 10)
    ]
    assert lines[0]["path"] not in samples_of(tmp_path, "train")


def test_too_many_rejected_leave_the_set_unfinished(tmp_path, quietly):
    with pytest.raises(UserError, match=r"5 of 50 images are bad.*rejected\.jsonl"):
        quietly(numbered(50, faulty), tmp_path, max_rejected=0.09)
    assert not (tmp_path / manifest.FILE).exists()
    assert (tmp_path / "rejected.jsonl").read_text().count("\n") == 5


def all_bad(sample: Sample) -> Raw:
    raise Rejected("bad")


def test_a_split_without_one_good_sample_is_no_split(tmp_path, quietly):
    with pytest.raises(UserError, match="split train: not one image"):
        quietly(numbered(4, all_bad), tmp_path, max_rejected=1.0)
    assert not list(tmp_path.glob("*.tar"))


def test_a_finished_set_is_left_alone(tmp_path, quietly):
    assert quietly(numbered(5), tmp_path).fresh
    before = (tmp_path / "train-00000.tar").stat().st_mtime_ns
    assert not quietly(numbered(5), tmp_path).fresh
    assert (tmp_path / "train-00000.tar").stat().st_mtime_ns == before


def test_other_options_are_refused_by_name_unless_told_to_overwrite(tmp_path, quietly):
    quietly(numbered(5), tmp_path)
    with pytest.raises(UsageError, match=r"seed 0 → 1.*make shards DATA=arrays.*--overwrite"):
        quietly(numbered(5), tmp_path, seed=1)
    with pytest.raises(UsageError, match=r"val None → 0\.2"):
        quietly(replace(numbered(5), recipe={"val": 0.2}), tmp_path)
    assert quietly(numbered(5), tmp_path, seed=1, overwrite=True).manifest.recipe["seed"] == 1


def test_leftovers_of_an_unfinished_build_go_and_other_files_stay(tmp_path, quietly):
    for name in (
        "train-00007.tar",
        "train-00007.npy",
        ".val-00000.tar.0123abcd.tmp",
        "notes.txt",
        "train-1.tar",
        manifest.UNFINISHED,
    ):
        (tmp_path / name).write_text("left over")
    quietly(numbered(5), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("train-00000.tar", "train-00000.idx", "train-00000.npy", "dataset.json", "rejected.jsonl", ".lock"),
        *("notes.txt", "train-1.tar"),
    }


@pytest.mark.parametrize("overwrite", [False, True])
def test_tars_that_are_someone_elses_are_never_removed(tmp_path, quietly, overwrite):
    (tmp_path / "train-00000.tar").write_bytes(b"years of work")
    with pytest.raises(UsageError, match=r"train-00000\.tar, which no build of this program left"):
        quietly(numbered(10), tmp_path, overwrite=overwrite)
    assert (tmp_path / "train-00000.tar").read_bytes() == b"years of work"


def test_a_second_build_into_the_directory_stops(tmp_path, quietly):
    with locked(tmp_path, "busy"), pytest.raises(UserError, match="another build"):
        quietly(numbered(5), tmp_path)


def interrupt(at: int, done: int) -> None:
    if done >= at:
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_neither_a_manifest_nor_temporary_files(tmp_path, quietly, workers):
    with pytest.raises(KeyboardInterrupt):
        quietly(renderer.source(0, {"train": 1600}), tmp_path, workers=workers, show=partial(interrupt, 50))
    assert not (tmp_path / manifest.FILE).exists()
    assert not list(tmp_path.glob(".*.tmp"))
    quietly(numbered(5), tmp_path, overwrite=True)
    assert not (tmp_path / "train-00001.tar").exists()


def die(sample: Sample) -> Raw:
    if multiprocessing.parent_process():
        os._exit(9)
    return arrays(sample)


def test_a_worker_that_dies_is_told_in_one_line(tmp_path, quietly):
    with pytest.raises(UserError, match="a worker died"):
        quietly(numbered(0, die, train=5, val=5), tmp_path, workers=2)
    assert not (tmp_path / manifest.FILE).exists()


def test_a_disk_too_small_is_told_before_the_work(tmp_path, quietly, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match=r"0\.0 GB are free"):
        quietly(numbered(5), tmp_path)
