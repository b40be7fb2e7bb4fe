"""Damage that is seen before DALI sees it: each kind ends in one line that names the file."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from amdim.errors import UserError
from amdim.pipeline.sample_store import SampleStore


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    from amdim.shards.build import build
    from amdim.shards.shapes.renderer import source

    out = tmp_path_factory.mktemp("shapes") / "shapes"
    build(source(0, {"train": 40, "val": 10}), out, seed=0, workers=1, max_rejected=0, overwrite=False, show=lambda _: None)
    return out


@pytest.fixture
def copy(shapes, tmp_path):
    return shutil.copytree(shapes, tmp_path / "set")


def opened(root):
    return SampleStore(root, ["train"])


def test_every_image_of_a_good_set_passes(shapes, photo_set):
    for root in (shapes, photo_set):
        store = opened(root)
        assert all(len(store.encoded(sample)) for sample in range(len(store)))


def test_a_batch_is_its_images_and_the_disk_is_told_of_all_before_the_first_is_read(shapes, monkeypatch):
    store, calls = opened(shapes), []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *place_and_advice: calls.append(place_and_advice))
    samples = np.array([7, 3, 20])
    monkeypatch.setattr(store, "encoded", lambda sample: calls.append(sample) or SampleStore.encoded(store, sample))
    found = store.batch(samples)
    places = [(store.offset[sample], store.length[sample], os.POSIX_FADV_WILLNEED) for sample in samples]
    assert calls == [*places, 7, 3, 20]
    assert all(np.array_equal(image, SampleStore.encoded(store, sample)) for image, sample in zip(found, samples, strict=True))


def test_two_threads_read_what_one_does(photo_set, monkeypatch):
    """While each closes the files that the other has used."""
    monkeypatch.setattr("amdim.pipeline.dataset.OPEN", 1)
    store = both_splits(photo_set)
    whole = [image.tobytes() for image in store.batch(range(len(store)))]

    def read(seed):
        samples = np.random.default_rng(seed).permutation(np.arange(len(store)).repeat(5))
        return all(store.encoded(sample).tobytes() == whole[sample] for sample in samples)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def both_splits(root):
    return SampleStore(root, ["train", "val"])


@pytest.mark.parametrize("name", ["shapes", "photo_set"])
def test_any_flipped_bit_is_seen(name, request, tmp_path):
    """In JPEG too, whose decoders take most damage for pixels."""
    store = opened(shutil.copytree(request.getfixturevalue(name), tmp_path / "set"))
    good = store.encoded(3)
    shard = int(np.searchsorted(store.starts, 3, "right")) - 1
    with (store.set.root / store.shards[shard].file).open("r+b", buffering=0) as file:
        for at in np.random.default_rng(0).integers(0, len(good), 50):
            place = int(store.offset[3] + at)
            for flip in (True, False):  # and back
                file.seek(place)
                byte = file.read(1)[0] ^ 1 << int(at % 8)
                file.seek(place)
                file.write(bytes([byte]))
                if flip:
                    with pytest.raises(UserError, match="has changed"):
                        store.encoded(3)
    assert np.array_equal(store.encoded(3), good)


def test_rows_that_point_elsewhere_are_seen(shapes):
    for column in ("offset", "length"):
        for change in (1, -1, 10**9):
            store = opened(shapes)
            getattr(store, column)[3] += change
            with pytest.raises(UserError, match=r"has changed|is cut short"):
                store.encoded(3)


def test_a_shard_that_is_cut_short_while_it_is_open_ends_in_one_line(copy):
    store = opened(copy)
    store.encoded(0)
    tar = copy / "train-00000.tar"
    os.truncate(tar, int(store.offset[7]) + 10)
    assert len(store.encoded(6))
    with pytest.raises(UserError, match=r"train-00000\.tar: the image of sample 000000007 is cut short.*python -m shards verify"):
        store.encoded(7)


def test_a_shard_that_is_removed_goes_on_where_it_is_open_and_is_named_where_it_is_not(copy):
    held, late = opened(copy), opened(copy)
    held.encoded(0)
    (copy / "train-00000.tar").unlink()
    assert len(held.encoded(7))
    with pytest.raises(UserError, match=r"sample 000000007 cannot be read .*No such file.*verify"):
        late.encoded(7)


def test_few_files_are_open_at_a_time(photo_set, monkeypatch):
    monkeypatch.setattr("amdim.pipeline.dataset.OPEN", 2)
    store = opened(photo_set)
    store.shards, store.starts = [replace(store.shards[0], samples=n) for n in range(5)], np.arange(6)  # of one sample each
    whole = opened(photo_set).encoded(0)
    store.offset, store.length, store.crc = (np.repeat(part[:1], 5) for part in (store.offset, store.length, store.crc))
    for sample in (0, 1, 2, 0, 4, 3, 3):
        assert np.array_equal(store.encoded(sample), whole)
        assert len(store.set.opened) <= 2
        assert next(reversed(store.set.opened)) == store.shards[sample]


def test_a_damaged_sample_is_named(copy):
    store = opened(copy)
    tar = copy / "train-00000.tar"
    data = bytearray(tar.read_bytes())
    data[int(store.offset[7]) + 60] ^= 255
    tar.write_bytes(data)
    with pytest.raises(UserError, match=r"train-00000\.tar: the image of sample 000000007 has changed.*python -m shards verify"):
        opened(copy).encoded(7)


@pytest.mark.parametrize("damage", ["empty", "short", "missing"])
def test_a_shard_of_another_size_is_refused_at_the_start(copy, damage):
    tar = copy / "train-00000.tar"
    content = tar.read_bytes()
    tar.unlink()
    if damage != "missing":
        tar.write_bytes(content[: 0 if damage == "empty" else -512])
    with pytest.raises(UserError, match=r"train-00000\.tar: has .* bytes.*verify"):
        opened(copy)


def test_a_label_without_a_class_is_refused(copy):
    index = np.load(copy / "train-00000.npy")
    index["label"][0] = 70
    np.save(copy / "train-00000.npy", index)
    with pytest.raises(UserError, match=r"a label is 70, and there are 10 classes"):
        opened(copy)


def test_an_index_of_another_length_is_refused(copy):
    fields = json.loads((copy / "dataset.json").read_text())
    fields["splits"]["train"]["samples"] = fields["splits"]["train"]["shards"][0]["samples"] = 41
    (copy / "dataset.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"its index counts 40 samples, and dataset.json 41"):
        opened(copy)
