"""Damage that is seen before DALI sees it: each kind ends in one line that names the file."""

import json
import shutil

import numpy as np
import pytest

from errors import UserError
from pipeline.store import Store
from shards import manifest


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    from shards.build import build
    from shards.shapes import source

    out = tmp_path_factory.mktemp("shapes") / "shapes"
    build(source(0, {"train": 40, "val": 10}), out, seed=0, workers=1, max_rejected=0, overwrite=False, show=lambda _: None)
    return out


@pytest.fixture
def copy(shapes, tmp_path):
    return shutil.copytree(shapes, tmp_path / "set")


def opened(root):
    return Store(root, manifest.load(root), ["train"])


def test_every_image_of_a_good_set_passes(shapes, photo_set):
    for root in (shapes, photo_set):
        store = opened(root)
        assert all(len(store.encoded(sample)) for sample in range(len(store)))


@pytest.mark.parametrize("name", ["shapes", "photo_set"])
def test_any_flipped_bit_is_seen(name, request):
    """In JPEG too, whose decoders take most damage for pixels."""
    store = opened(request.getfixturevalue(name))
    good = store.encoded(3)
    shard = int(np.searchsorted(store.starts, 3, "right")) - 1
    whole = store.maps[shard]
    for at in np.random.default_rng(0).integers(0, len(good), 50):
        store.maps[shard] = whole.copy()
        store.maps[shard][store.offset[3] + at] ^= 1 << int(at % 8)
        with pytest.raises(UserError, match="has changed"):
            store.encoded(3)


def test_rows_that_point_elsewhere_are_seen(shapes):
    for column in ("offset", "length"):
        for change in (1, -1, 10**9):
            store = opened(shapes)
            getattr(store, column)[3] += change
            with pytest.raises(UserError, match="has changed"):
                store.encoded(3)


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
