"""The parameters of views: pure functions of (seed, epoch, step), with the distributions that the recipe states.

Distribution tests draw 40,000 views from fixed seeds; bounds are 5 standard errors wide.
"""

from dataclasses import replace

import numpy as np
import pytest

from amdim.pipeline.augment import color_jitter_affine, jitter_params
from amdim.pipeline.augment.recipes import CIFAR32, IMAGENET128, RECIPES
from amdim.pipeline.augment.view_params import (
    center_view_params,
    generator,
    mirrored,
    random_box,
    sample_locations,
    sample_view_params,
)

N = 40_000
SIZES = np.tile([[120, 90]], (N, 1))


def five_sigma(p, n=N):
    return 5 * np.sqrt(p * (1 - p) / n)


def flipped(view):
    return view.box[:, 1] > view.box[:, 3]


@pytest.mark.parametrize("name", RECIPES)
def test_same_position_same_draws(name):
    a, b = (sample_view_params(RECIPES[name], SIZES[:50], 3, 1, 7) for _ in range(2))
    for mine, again in zip(a, b, strict=True):
        assert np.array_equal(mine.box, again.box)
        assert all(np.array_equal(x, y) for x, y in zip(mine.jitter, again.jitter, strict=True))
    other = sample_view_params(RECIPES[name], SIZES[:50], 3, 1, 8)
    assert not np.array_equal(a[0].box, other[0].box)


def test_flip_is_shared_and_nothing_else():
    first, second = sample_view_params(IMAGENET128, SIZES, 0, 0, 0)
    assert np.array_equal(flipped(first), flipped(second))
    assert flipped(first).mean() == pytest.approx(0.5, abs=five_sigma(0.5))
    tops = np.corrcoef(first.box[:, 0], second.box[:, 0])[0, 1]
    amounts = np.corrcoef(first.jitter.amount.T, second.jitter.amount.T)[:4, 4:]
    assert abs(tops) < 5 / np.sqrt(N)
    assert np.abs(amounts).max() < 5 / np.sqrt(N)


def test_orientation_is_shared_by_the_views_and_each_way_is_its_own_draw():
    recipe = replace(IMAGENET128, flip_vertical=0.5, transpose=0.25)
    first, second = sample_view_params(recipe, SIZES, 0, 0, 0)
    ways = [np.array([flipped(view), view.box[:, 0] > view.box[:, 2], view.transposed]) for view in (first, second)]
    assert np.array_equal(*ways)
    for way, p in zip(ways[0], (0.5, 0.5, 0.25), strict=True):
        assert way.mean() == pytest.approx(p, abs=five_sigma(p))
    assert np.abs(np.corrcoef(ways[0])[~np.eye(3, dtype=bool)]).max() < 5 / np.sqrt(N)
    # And without them, all else is as it was.
    for view, before in zip((first, second), sample_view_params(IMAGENET128, SIZES, 0, 0, 0), strict=True):
        assert np.array_equal(np.sort(view.box[:, [0, 2]]), before.box[:, [0, 2]])
        assert np.array_equal(view.jitter.amount, before.jitter.amount)


def test_boxes_are_whole_pixels_within_the_image():
    box = random_box(IMAGENET128, SIZES, generator(0, stream="test"))
    assert np.array_equal(box, np.floor(box))
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2] <= 90).all()
    assert (box[:, 3] <= 120).all()
    assert (box[:, 2:] > box[:, :2]).all()


def test_box_areas_and_aspects_lie_where_the_recipe_says():
    big = SIZES * 100  # so that rounding to pixels does not show
    box = random_box(IMAGENET128, big, generator(0, stream="test"))
    height, width = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    area, aspect = height * width / (12_000 * 9_000), width / height
    assert area.min() >= 0.299
    assert area.max() <= 1.0
    assert aspect.min() >= 0.69
    assert aspect.max() <= 1.41
    # torchvision's algorithm on 120 x 90 images, by NVIDIA DALI's and torchvision's own draws: mean area .549 to .555
    assert area.mean() == pytest.approx(0.552, abs=0.006)


def farthest_from_uniform(values, low, high):
    """Kolmogorov's distance between the values' distribution and the uniform one."""
    steps = np.sort((np.asarray(values, float) - low) / (high - low))
    return max(
        np.abs(steps - np.arange(len(steps)) / len(steps)).max(), np.abs(steps - np.arange(1, len(steps) + 1) / len(steps)).max()
    )


def test_boxes_that_fit_are_uniform_in_area_log_aspect_and_place():
    """Kolmogorov-Smirnov at a significance of 1e-5, in each view; areas that all fit, or the largest would be drawn again."""
    recipe, big = replace(IMAGENET128, area=(0.1, 0.5), flip=0.0), SIZES * 1000
    for view in sample_view_params(recipe, big, 0, 0, 0):
        top, left, bottom, right = view.box.T.astype(float)
        height, width = bottom - top, right - left
        distances = {
            "area": farthest_from_uniform(height * width / (120_000 * 90_000), 0.1, 0.5),
            "aspect": farthest_from_uniform(np.log(width / height), np.log(0.7), np.log(1.4)),
            "top": farthest_from_uniform(top / (90_000 - height), 0, 1),
            "left": farthest_from_uniform(left / (120_000 - width), 0, 1),
        }
        assert max(distances.values()) < 2.47 / np.sqrt(N), distances


def test_factors_are_uniform_and_each_is_its_own_draw():
    """Kolmogorov-Smirnov at a significance of 1e-5; correlations within 5 standard errors."""
    drawn = jitter_params.draw(replace(IMAGENET128, jitter_p=1.0), N, generator(0, stream="test"))
    for factor in drawn.amount.T[:3]:
        assert farthest_from_uniform(factor, 0.6, 1.4) < 2.47 / np.sqrt(N)
    assert farthest_from_uniform(drawn.amount[:, 3], -0.1, 0.1) < 2.47 / np.sqrt(N)
    all_of_them = np.corrcoef(np.column_stack([drawn.amount, drawn.order[:, :3], drawn.gray]).T)
    all_of_them[4:7, 4:7] = 0  # an order's places exclude one another
    assert np.abs(all_of_them[np.triu_indices(8, 1)]).max() < 5 / np.sqrt(N)


def test_everything_but_orientation_is_drawn_for_each_view_on_its_own():
    first, second = (
        np.column_stack([view.box[:, [0, 2]], view.jitter.amount, view.jitter.order[:, :3], view.jitter.gray])
        for view in sample_view_params(IMAGENET128, SIZES, 0, 0, 0)
    )
    both = np.corrcoef(first.T, second.T)
    assert np.abs(both[: first.shape[1], first.shape[1] :]).max() < 5 / np.sqrt(N)


def test_impossible_boxes_fall_back_to_the_largest_centred_one():
    thin = np.tile([[2000, 20]], (10, 1))
    box = random_box(IMAGENET128, thin, generator(0, stream="test"))
    assert (box == [0, 986, 20, 1014]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2)])
def test_tiny_images_have_boxes(size):
    box = random_box(IMAGENET128, np.tile([size], (100, 1)), generator(0, stream="test"))
    assert (box[:, 2:] - box[:, :2] >= 1).all()
    assert (box[:, 3] <= size[0]).all()
    assert (box[:, 2] <= size[1]).all()


def test_shift_moves_by_whole_pixels_and_probability():
    first, _ = sample_view_params(replace(CIFAR32, flip=0.0), np.tile([[32, 32]], (N, 1)), 0, 0, 0)
    offset = first.box[:, :2]
    assert set(np.unique(offset)) == set(range(-4, 5))
    assert np.array_equal(first.box[:, 2:], offset + 32)
    still = 0.2 + 0.8 / 81
    assert (offset == 0).all(1).mean() == pytest.approx(still, abs=five_sigma(still))


def test_jitter_probabilities_ranges_and_order():
    drawn = jitter_params.draw(IMAGENET128, N, generator(0, stream="test"))
    *factors, hue = drawn.amount.T
    jittered = factors[0] != 1
    assert jittered.mean() == pytest.approx(0.8, abs=five_sigma(0.8))
    assert np.array_equal(jittered, hue != 0)
    assert drawn.gray.mean() == pytest.approx(0.25, abs=five_sigma(0.25))
    for factor in factors:
        assert 0.6 <= factor.min() < 0.601
        assert 1.399 < factor.max() <= 1.4
        assert factor[jittered].mean() == pytest.approx(1.0, abs=5 * 0.231 / np.sqrt(0.8 * N))
    assert np.abs(hue).max() <= 0.1
    orders, counts = np.unique(drawn.order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert np.abs(counts / N - 1 / 24).max() < five_sigma(1 / 24)


def test_colour_map_is_the_operations_one_after_another():
    """Against each operation applied to pixels in turn, contrast about the mean gray of the image as it then stands."""
    rng = np.random.default_rng(0)
    drawn = jitter_params.draw(IMAGENET128, 200, rng)
    gain, centre = color_jitter_affine.compose(drawn)
    image = rng.uniform(0, 255, (40, 3))
    for n in range(200):
        pixels = image
        for operation in drawn.order[n]:
            gray, amount = pixels @ color_jitter_affine.LUMA, drawn.amount[n, operation]
            if operation == 0:
                pixels = pixels * amount
            elif operation == 1:
                pixels = amount * pixels + (1 - amount) * gray.mean()
            elif operation == 2:
                pixels = amount * pixels + (1 - amount) * gray[:, None]
            else:
                pixels = pixels @ color_jitter_affine.hue_rotation(amount[None])[0].T
        if drawn.gray[n]:
            pixels = np.repeat((pixels @ color_jitter_affine.LUMA)[:, None], 3, 1)
        ours = image @ gain[n].T + image.mean(0) @ centre[n].T
        np.testing.assert_allclose(ours, pixels, atol=1e-9)


def test_hue_keeps_luma_and_a_full_turn_is_the_identity():
    rotation = color_jitter_affine.hue_rotation(np.array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(rotation[[0, 2]], np.tile(np.eye(3), (2, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(color_jitter_affine.LUMA @ rotation[1], color_jitter_affine.LUMA, atol=1e-5)


def test_mirroring_swaps_left_and_right():
    box = np.array([[1.0, 2.0, 3.0, 4.0]] * 2)
    assert mirrored(box, np.array([True, False]), np.array([False, False])).tolist() == [[1, 4, 3, 2], [1, 2, 3, 4]]
    assert mirrored(box, np.array([True, False]), np.array([True, True])).tolist() == [[3, 4, 1, 2], [3, 2, 1, 4]]


def test_centre_view_is_the_resized_centre():
    """Resize the shorter side to 146, take the centre 128: in source pixels, a centred square of 128/146 of the shorter side."""
    view = center_view_params(IMAGENET128.centred(), np.array([[292, 146], [256, 256]]))
    assert view.box.tolist() == [[9, 82, 137, 210], [16, 16, 240, 240]]
    assert not view.jitter.gray.any()


def test_locations_are_uniform_and_independent_between_views():
    locations = sample_locations(0, 0, 0, N)
    assert locations.shape == (2, N)
    counts = np.bincount(locations[0], minlength=25) / N
    assert np.abs(counts - 0.04).max() < five_sigma(0.04)
    assert (locations[0] == locations[1]).mean() == pytest.approx(0.04, abs=five_sigma(0.04))
