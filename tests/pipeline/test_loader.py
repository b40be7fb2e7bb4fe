"""The loader on real shards: what it delivers, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from amdim.errors import UsageError
from amdim.pipeline import EvalLoader, TwoViewLoader, sample_store
from amdim.pipeline.augment.recipes import CIFAR32, IMAGENET128
from amdim.pipeline.sample_store import batch_that_fits
from tests.pipeline.loaders import RECIPE, loader


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


def test_a_state_of_other_data_or_options_is_refused(photo_set):
    state = loader(photo_set).state_dict()
    with pytest.raises(UsageError, match="seed"):
        loader(photo_set, seed=6).load_state_dict(state)
    with pytest.raises(UsageError, match="batch"):
        loader(photo_set, batch=8).load_state_dict(state)
    with pytest.raises(UsageError, match="recipe"):
        loader(photo_set, recipe=IMAGENET128).load_state_dict(state)
    with pytest.raises(UsageError, match="pixels"):
        loader(photo_set, pixels="dali", recipe=RECIPE).load_state_dict(state)
    with pytest.raises(UsageError, match="as shards changed; start anew with another --run"):
        TwoViewLoader(photo_set, ["val"], RECIPE, 16, seed=5).load_state_dict(state)


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


def test_an_unknown_split_is_named(photo_set):
    with pytest.raises(UsageError, match="no split 'test'"):
        TwoViewLoader(photo_set, ["test"], RECIPE, 4)


def test_evaluation_reads_every_image_once_in_order(photo_set):
    source = EvalLoader(photo_set, ["val"], RECIPE, batch=10)
    batches = list(source)
    assert [len(y) for _, y in batches] == [10, 10, 4]
    assert torch.equal(torch.cat([y for _, y in batches]), torch.from_numpy(source.store.labels))
    again = torch.cat([x for x, _ in EvalLoader(photo_set, ["val"], RECIPE, batch=24)])
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), again, rtol=0, atol=0)


def test_fewer_large_images_are_decoded_at_a_time():
    small, large = np.full((300, 2), 500), np.full((300, 2), 4000)
    assert batch_that_fits(small, 256) == 256
    assert batch_that_fits(large, 256) == 16  # of 48 MB each, in a gigabyte
    assert batch_that_fits(np.concatenate([small, large[:30]]), 256) == 64
    assert batch_that_fits(large[:1] * 10, 256) == 1
    assert batch_that_fits(large[:0], 256) == 256


def test_evaluation_of_large_images_sees_the_same(photo_set, monkeypatch):
    whole = torch.cat([x for x, _ in EvalLoader(photo_set, ["val"], RECIPE)])
    monkeypatch.setattr(sample_store, "DECODED", 2**17)
    parts = EvalLoader(photo_set, ["val"], RECIPE)
    assert parts.batch < 24
    torch.testing.assert_close(torch.cat([x for x, _ in parts]), whole, rtol=0, atol=0)


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
