"""Damage that is met while views are made: it ends its own step in one line with shard and key."""

import zlib

import numpy as np
import pytest

from amdim.errors import UserError
from amdim.pipeline import EvalLoader
from amdim.shards.index import key_of
from tests.pipeline.loaders import RECIPE, equal, loader, same, take


def place_of(source, sample):
    """File, offset and size of an image."""
    file = source.root.root / source.store.shards[source.store.shard_of(sample)].file
    return file, int(source.store.offset[sample]), int(source.store.length[sample])


def overwrite(file, offset, data):
    with file.open("r+b") as shard:
        shard.seek(offset)
        shard.write(data)


@pytest.mark.parametrize("pixels", ["dali", "levels", "torch"])
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_damage_ends_the_step_that_it_is_in_and_mended_the_loader_goes_on(copy, whole, pixels, prefetch):
    """However far ahead it was read. One line, with shard and key."""
    source = loader(copy, pixels=pixels, prefetch=prefetch)
    file, offset, size = place_of(source, source.samples(0, 3)[5])
    good = file.read_bytes()[offset : offset + size]
    overwrite(file, offset, bytes(size))
    batches = iter(source)
    assert all(equal(next(batches), expected) for expected in whole(pixels)[:3])
    with pytest.raises(
        UserError, match=r"train-00000\.tar: the image of sample \d+ has changed .*python -m shards verify"
    ) as caught:
        next(batches)
    assert "\n" not in str(caught.value)
    assert source.state_dict()["step"] == 3
    overwrite(file, offset, good)
    assert same(take(source, 3), whole(pixels)[3:6])


def make_undecodable(source, sample):
    """As an image is that Pillow took for one, or that was damaged before it was indexed: its checksum is right."""
    file, offset, size = place_of(source, sample)
    overwrite(file, offset, b"garbage " * (size // 8) + b"g" * (size % 8))
    index = np.load(file.with_suffix(".npy"))
    row = sample - source.store.starts[source.store.shard_of(sample)]
    index["crc"][row] = zlib.crc32(file.read_bytes()[offset : offset + size])
    np.save(file.with_suffix(".npy"), index)
    return key_of(file.with_suffix(".idx"), row)


@pytest.mark.parametrize("pixels", ["dali", "levels", "torch"])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_what_cannot_be_decoded_is_named(copy, pixels, prefetch):
    key = make_undecodable(loader(copy), loader(copy).samples(0, 2)[5])
    batches = iter(loader(copy, pixels=pixels, prefetch=prefetch))
    next(batches), next(batches)
    with pytest.raises(UserError, match=rf"the image of sample {key} cannot be decoded \(.+\); .*python -m shards verify"):
        next(batches)


def test_a_fault_of_the_gpu_is_no_images(copy, monkeypatch):
    """Who started the ranks may start them again, and looks for the words."""

    def lost(*_):
        raise RuntimeError("Error in GPU operator `decoders.Image`: CUDA runtime API error cudaErrorECCUncorrectable (214)")

    monkeypatch.setattr("amdim.pipeline.dali.next_outputs", lost)
    with pytest.raises(RuntimeError, match="ECCUncorrectable"):
        next(iter(loader(copy)))


def test_evaluation_names_what_cannot_be_decoded(copy):
    key = make_undecodable(EvalLoader(copy, ["val"], RECIPE), 13)
    batches = iter(EvalLoader(copy, ["val"], RECIPE, batch=10))
    next(batches)
    with pytest.raises(UserError, match=rf"val-00000\.tar: the image of sample {key} cannot be decoded"):
        next(batches)
