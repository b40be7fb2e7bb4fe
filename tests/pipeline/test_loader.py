"""The loader on real shards: what it delivers, how it resumes, and how it shares a batch among ranks."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from errors import UsageError, UserError
from pipeline import EvalLoader, TwoViewLoader
from pipeline.recipes import CIFAR32, IMAGENET128, STL64

RECIPE = replace(STL64, size=32, resize=36)


def loader(root, **options):
    return TwoViewLoader(root, ["train"], **({"recipe": RECIPE, "batch": 16, "seed": 5, "threads": 1} | options))


def take(source, count):
    """The next batches, across epochs."""
    batches = []
    while len(batches) < count:
        for views in source:
            batches.append(views)
            if len(batches) == count:
                break
    return batches


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_batches_are_channels_last_normalised_float(photo_set):
    views = next(iter(loader(photo_set)))
    assert views.x1.shape == views.x2.shape == (16, 3, 32, 32)
    assert views.x1.is_contiguous(memory_format=torch.channels_last)
    assert views.x1.dtype == torch.float32
    assert views.label.dtype == torch.int64
    assert set(views.label.tolist()) <= {0, 1}
    assert abs(views.x1.mean()) < 1.5
    assert not torch.equal(views.x1, views.x2)


@pytest.mark.parametrize("pixels", ["dali", "torch"])
def test_without_randomness_a_view_is_pillows_resized_crop(photo_set, pixels):
    """Against Pillow's bicubic: within 3 levels, on average far less."""
    plain = replace(RECIPE, area=(1.0, 1.0), flip=0.0, jitter_p=0.0, gray_p=0.0, aspect=(0.1, 10.0))
    source = loader(photo_set, recipe=plain, pixels=pixels)
    views = next(iter(source))
    boxes = source.job(0, 0).draws[0].box
    for k, sample in enumerate(source.samples(0, 0)):
        top, left, bottom, right = boxes[k]
        image = decoded(source, sample).crop((left, top, right, bottom)).resize((32, 32), Image.Resampling.BICUBIC)
        ours = (views.x1[k].permute(1, 2, 0).numpy() * plain.std + plain.mean) * 255
        difference = np.abs(ours - np.asarray(image, np.float64))
        assert difference.max() <= 3.01
        assert difference.mean() <= 0.2


def decoded(source, sample):
    import io

    return Image.open(io.BytesIO(source.store.encoded(sample).tobytes())).convert("RGB")


@pytest.mark.parametrize("pixels", ["dali", "torch"])
def test_flip_mirrors_both_views(photo_set, pixels):
    plain = replace(RECIPE, area=(1.0, 1.0), flip=0.0, jitter_p=0.0, gray_p=0.0)
    straight, mirrored = (next(iter(loader(photo_set, pixels=pixels, recipe=replace(plain, flip=p)))) for p in (0.0, 1.0))
    # Boxes come from the same draws, as the flip takes its numbers whatever its probability.
    torch.testing.assert_close(straight.x1, mirrored.x1.flip(3), atol=2 / 255 / min(RECIPE.std), rtol=0)
    torch.testing.assert_close(straight.x2, mirrored.x2.flip(3), atol=2 / 255 / min(RECIPE.std), rtol=0)


@pytest.mark.parametrize("pixels", ["dali", "torch"])
@pytest.mark.parametrize("color", ["exact", "fused"])
def test_gray_views_are_gray(photo_set, pixels, color):
    views = next(iter(loader(photo_set, pixels=pixels, recipe=replace(RECIPE, gray_p=1.0, color=color))))
    gray = views.x1 * torch.tensor(RECIPE.std).view(3, 1, 1) + torch.tensor(RECIPE.mean).view(3, 1, 1)
    torch.testing.assert_close(gray[:, 0], gray[:, 2], atol=1e-3, rtol=0)


@pytest.mark.parametrize("pixels", ["dali", "torch"])
def test_shift_reflects_at_the_border(tmp_path, pixels):
    """The CIFAR recipe against np.pad's reflection, shifted and flipped."""
    from tests.conftest import build

    rng = np.random.default_rng(0)
    (tmp_path / "src" / "a").mkdir(parents=True)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "src" / "a" / f"{number}.png")
    build("folder", "--src", str(tmp_path / "src"), "--out", str(tmp_path / "set"), "--val", "0.1", "--workers", "1")
    recipe = replace(CIFAR32, jitter_p=0.0, gray_p=0.0)
    source = loader(tmp_path / "set", recipe=recipe, pixels=pixels)
    views, boxes = next(iter(source)), source.job(0, 0).draws[0].box
    for k, sample in enumerate(source.samples(0, 0)):
        pixels = np.asarray(decoded(source, sample))
        top, left, _, right = boxes[k]
        low = min(left, right)
        shifted = np.pad(pixels, ((4, 4), (4, 4), (0, 0)), mode="reflect")[4 + top : 36 + top, 4 + low : 36 + low]
        expected = shifted[:, ::-1] if left > right else shifted
        ours = (views.x1[k].permute(1, 2, 0).numpy() * recipe.std + recipe.mean) * 255
        np.testing.assert_allclose(ours, expected, atol=0.01)


def test_each_sample_at_most_once_an_epoch_and_labels_follow(photo_set):
    source = loader(photo_set, batch=20)
    assert len(source) == 96 // 20
    for epoch in range(3):
        seen = np.concatenate([source.samples(epoch, step) for step in range(len(source))])
        assert len(set(seen.tolist())) == len(seen) == 80
    labels = torch.cat([views.label for views in source])
    expected = np.concatenate([source.store.labels[source.samples(0, step)] for step in range(len(source))])
    assert labels.tolist() == expected.tolist()


def test_same_seed_same_batches_another_seed_others(photo_set):
    first, again, other = (take(loader(photo_set, seed=seed), 3) for seed in (1, 1, 2))
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].x1, other[0].x1)


@pytest.mark.parametrize("pixels", ["dali", "torch"])
@pytest.mark.parametrize("done", [1, 5, 6, 9])
def test_resume_continues_bit_for_bit(photo_set, done, pixels):
    """Within an epoch, at its end, and in the next one; an epoch is 6 batches. Other threads make no difference."""
    whole = take(loader(photo_set, pixels=pixels), 14)
    started = loader(photo_set, pixels=pixels)
    take(started, done)
    resumed = loader(photo_set, pixels=pixels, threads=2)
    resumed.load_state_dict(started.state_dict())
    assert all(equal(a, b) for a, b in zip(take(resumed, 14 - done), whole[done:], strict=True))


def test_two_ranks_share_the_batches_of_one(photo_set):
    whole = take(loader(photo_set), 7)
    ranks = [take(loader(photo_set, rank=rank, world=2), 7) for rank in range(2)]
    for step, batch in enumerate(whole):
        joined = [torch.cat([ranks[0][step][k], ranks[1][step][k]]) for k in range(3)]
        assert equal(joined, batch)


def test_a_state_of_other_data_or_options_is_refused(photo_set):
    state = loader(photo_set).state_dict()
    with pytest.raises(UsageError, match="seed"):
        loader(photo_set, seed=6).load_state_dict(state)
    with pytest.raises(UsageError, match="batch"):
        loader(photo_set, batch=8).load_state_dict(state)
    with pytest.raises(UsageError, match="recipe"):
        loader(photo_set, recipe=IMAGENET128).load_state_dict(state)


def test_a_batch_larger_than_the_split_is_refused_with_the_numbers(photo_set):
    with pytest.raises(UsageError, match=r"96 samples.*batch of 97"):
        loader(photo_set, batch=97)


@pytest.mark.parametrize(
    ("world", "advice"), [(1, "try --batch-size 48"), (5, "try --batch-size 45"), (64, "too few for 64 ranks")]
)
def test_the_batch_that_is_advised_is_one_that_is_taken(photo_set, world, advice):
    with pytest.raises(UsageError, match=advice) as caught:
        loader(photo_set, batch=64 * 5, world=world)
    if advice.startswith("try"):
        assert len(loader(photo_set, batch=int(str(caught.value).split()[-1]), world=world)) == 2


def test_a_split_that_is_named_twice_is_refused(photo_set):
    with pytest.raises(UsageError, match=r"train\+val\+train names a split twice"):
        TwoViewLoader(photo_set, ["train", "val", "train"], RECIPE, 4)


RESUME = """
import sys, torch
from pathlib import Path
from tests.pipeline.test_loader import loader, take
source = loader(Path(sys.argv[1]), threads=2)
source.load_state_dict(torch.load(sys.argv[2]))
torch.save([list(views) for views in take(source, 5)], sys.argv[3])
"""


def test_another_process_continues_bit_for_bit(photo_set, tmp_path):
    started = loader(photo_set)
    whole = take(started, 4)
    torch.save(started.state_dict(), tmp_path / "state")
    whole = take(started, 5)
    paths = [str(path) for path in (photo_set, tmp_path / "state", tmp_path / "batches")]
    subprocess.run([sys.executable, "-c", RESUME, *paths], check=True)
    assert all(equal(a, b) for a, b in zip(whole, torch.load(tmp_path / "batches"), strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_a_state_of_one_rank_is_continued_by_several(photo_set, world):
    started = loader(photo_set)
    take(started, 4)
    state, whole = started.state_dict(), take(started, 3)
    ranks = [loader(photo_set, rank=rank, world=world) for rank in range(world)]
    for source in ranks:
        source.load_state_dict(state)
    parts = [take(source, 3) for source in ranks]
    for step, batch in enumerate(whole):
        assert equal([torch.cat([part[step][k] for part in parts]) for k in range(3)], batch)


def test_an_unknown_split_is_named(photo_set):
    with pytest.raises(UsageError, match="no split 'test'"):
        TwoViewLoader(photo_set, ["test"], RECIPE, 4)


def test_a_damaged_shard_ends_in_one_line(photo_set, tmp_path):
    import shutil

    copy = shutil.copytree(photo_set, tmp_path / "copy")
    source = loader(copy)
    broken = source.samples(0, 0)[3]
    file = copy / source.store.files[int(np.searchsorted(source.store.starts, broken, "right")) - 1]
    data = bytearray(file.read_bytes())
    start = int(source.store.offset[broken])
    data[start : start + 100] = bytes(100)
    file.write_bytes(data)
    with pytest.raises(UserError, match="verify") as caught:
        next(iter(loader(copy)))
    assert "\n" not in str(caught.value)


def test_evaluation_reads_every_image_once_in_order(photo_set):
    source = EvalLoader(photo_set, ["val"], RECIPE, batch=10)
    batches = list(source)
    assert [len(y) for _, y in batches] == [10, 10, 4]
    assert torch.equal(torch.cat([y for _, y in batches]), torch.from_numpy(source.store.labels))
    again = torch.cat([x for x, _ in EvalLoader(photo_set, ["val"], RECIPE, batch=24)])
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), again, rtol=0, atol=0)


@pytest.mark.parametrize("pixels", ["dali", "torch"])
def test_evaluation_is_the_resized_centre(photo_set, pixels):
    """Against torch's antialiased bicubic of the centred square."""
    source = EvalLoader(photo_set, ["val"], replace(RECIPE, resize=32), batch=8, pixels=pixels)
    x, _ = next(iter(source))
    for k in range(8):
        image = torch.from_numpy(np.asarray(decoded(source, k)).copy()).permute(2, 0, 1)[None].float()
        side = min(image.shape[2:])
        top, left = (image.shape[2] - side) // 2, (image.shape[3] - side) // 2
        square = image[:, :, top : top + side, left : left + side]
        expected = F.interpolate(square, (32, 32), mode="bicubic", antialias=True).clamp(0, 255)[0]
        ours = (x[k] * torch.tensor(RECIPE.std).view(3, 1, 1) + torch.tensor(RECIPE.mean).view(3, 1, 1)) * 255
        # DALI's filter looks past the square's border, so compare within.
        difference = (ours - expected)[:, 3:-3, 3:-3].abs()
        assert difference.max() <= 3.01
