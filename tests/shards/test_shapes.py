"""The built-in set: only the outline tells the class, and the mask is the object."""

from dataclasses import astuple, replace

import numpy as np
import pytest

from amdim.shards.shapes import renderer
from amdim.shards.sources.base import Sample

CLASSES = len(renderer.CLASSES)


def nuisances(count: int, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count, features) of everything drawn but the class, indices as one-hot columns and angles as points; and the classes."""
    drawn = [renderer.draw(0, "train", index) for index in range(start, start + count)]
    return np.array([features(params) for params in drawn]), np.array([params.label for params in drawn])


def features(params: renderer.ShapeParams) -> list[float]:
    columns = [params.x, params.y, params.radius, params.light, params.noise, params.noise_seed / 2**63, len(params.fragments)]
    for angle in (params.angle, params.light_angle, params.front.angle, params.back.angle):
        columns += [np.cos(angle), np.sin(angle), np.cos(4 * angle), np.sin(4 * angle)]
    for fill in (params.front, params.back):
        columns += [
            fill.tone,
            fill.period,
            fill.shift,
            *one_hot(fill.colour, len(renderer.PALETTE)),
            *one_hot(fill.texture, len(renderer.TEXTURES)),
        ]
    pieces = np.array([astuple(fragment) for fragment in params.fragments])
    return [*columns, *pieces.mean(0), *pieces.std(0), *pieces[0], *pieces[-1]]


def one_hot(index: int, count: int) -> np.ndarray:
    return np.eye(count)[index]


def accuracy(train: np.ndarray, classes: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Of a ridge classifier on the features and 200 random rectified mixtures of them."""
    mean, std = train.mean(0), train.std(0) + 1e-9
    mix = np.random.default_rng(0).standard_normal((train.shape[1], 200)) / np.sqrt(train.shape[1])

    def expand(x: np.ndarray) -> np.ndarray:
        x = (x - mean) / std
        return np.hstack([np.ones((len(x), 1)), x, np.maximum(x @ mix, 0)])

    a = expand(train)
    weights = np.linalg.solve(a.T @ a + 10 * np.eye(a.shape[1]), a.T @ np.eye(CLASSES)[classes])
    return float(((expand(test) @ weights).argmax(1) == truth).mean())


def test_no_nuisance_tells_the_class():
    """Right by chance one time in ten; 3.7 standard deviations above that has a probability of 1 in 10,000."""
    (train, classes), (test, truth) = nuisances(6000), nuisances(3000, start=6000)
    limit = 0.1 + 3.7 * np.sqrt(0.1 * 0.9 / len(truth))
    assert accuracy(train, classes, test, truth) < limit

    leak = 0.25  # pixels of radius a class: the same test sees even this
    train[:, 2] += leak * classes
    test[:, 2] += leak * truth
    assert accuracy(train, classes, test, truth) > limit


def test_classes_are_balanced():
    _, classes = nuisances(500)
    assert np.bincount(classes).tolist() == [50] * CLASSES


def test_a_picture_is_a_function_of_seed_split_and_index():
    picture, mask = renderer.render(renderer.draw(3, "val", 17))
    again, same_mask = renderer.render(renderer.draw(3, "val", 17))
    np.testing.assert_array_equal(picture, again)
    np.testing.assert_array_equal(mask, same_mask)
    for other in ((4, "val", 17), (3, "train", 17), (3, "val", 27)):
        assert (renderer.render(renderer.draw(*other))[0] != picture).any()


@pytest.mark.parametrize("index", range(2 * CLASSES))
def test_the_mask_is_where_the_object_is(index):
    """Painting the object in another colour changes the pixels of the mask, and beyond it at most a soft edge."""
    params = replace(renderer.draw(0, "train", index), light=0.0, noise=0.0)
    dark, light = (
        replace(params, front=replace(params.front, colour=colour, texture=0))
        for colour in (np.argmin(renderer.LUMINANCE), np.argmax(renderer.LUMINANCE))
    )
    (picture, mask), (other, other_mask) = renderer.render(dark), renderer.render(light)
    np.testing.assert_array_equal(mask, other_mask)
    changed = (picture != other).any(axis=2)
    inside = mask == 255
    near = np.pad(inside, 1)
    near = np.max([near[y : y + 64, x : x + 64] for y in range(3) for x in range(3)], axis=0)
    assert set(np.unique(mask)) == {0, 255}
    assert changed[inside].all()
    assert (changed & ~near).sum() <= 8  # the thin ends of a crescent


@pytest.mark.parametrize("label", range(CLASSES), ids=renderer.CLASSES)
def test_an_outline_fills_its_circle_and_stays_inside(label):
    params = replace(renderer.draw(0, "train", label), label=label)
    inside = renderer.render(params)[1] == 255
    distance = np.hypot(renderer.GRID_X - params.x, renderer.GRID_Y - params.y)
    assert distance[inside].max() < 1.08 * params.radius
    assert distance[inside].max() > 0.8 * params.radius
    assert 0.2 < inside.sum() / (np.pi * params.radius**2) < 0.95


def test_turning_a_picture_turns_its_mask():
    """A quarter turn about the middle: the same outline, pixel for pixel but for a few on the edge."""
    params = replace(renderer.draw(0, "train", 7), x=30.0, y=34.0, angle=0.4)
    turned = replace(params, x=64 - 34.0, y=30.0, angle=0.4 + np.pi / 2)
    expected = np.rot90(renderer.render(params)[1], -1)
    assert (renderer.render(turned)[1] != expected).sum() <= 4


def test_objects_stand_out():
    for index in range(100):
        params = renderer.draw(0, "train", index)
        contrast = abs(renderer.LUMINANCE[params.front.colour] - renderer.LUMINANCE[params.back.colour])
        assert contrast >= renderer.MIN_CONTRAST
        assert all(fragment.colour != params.front.colour for fragment in params.fragments)


def test_the_source_has_the_promised_numbers():
    source = renderer.source(0)
    assert {split: len(samples) for split, samples in source.splits.items()} == {"train": 20_000, "val": 4_000}
    assert source.splits["train"][13] == Sample("train/13", 3)
