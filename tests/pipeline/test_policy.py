"""Fast AutoAugment: its operations against Pillow, operation by operation and in pairs, with either back-end; and what is drawn.

Distribution tests draw 40,000 views from fixed seeds; bounds are 5 standard errors wide.
"""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from amdim.pipeline.augment import autoaugment, pca_lighting
from amdim.pipeline.augment.autoaugment import NAMES, RANGES, WARPS, AutoAugmentParams
from amdim.pipeline.augment.recipes import RECIPES, STRONG128
from amdim.pipeline.augment.view_params import generator, identity_params, sample_view_params
from tests.pipeline.test_pixels import PLAIN, natural, rendered, whole

RECIPE = replace(PLAIN, jitter_p=0.0, gray_p=0.0, policy="fast-autoaugment")
N = 40_000
AMOUNTS = {
    "ShearX": (-0.27, 0.021, 0.3),
    "ShearY": (-0.3, 0.11, 0.23),
    "TranslateX": (-0.44, 0.07, 0.311),
    "TranslateY": (-0.2, 0.013, 0.45),
    "Rotate": (-29.7, 3.3, 30.0),
    "AutoContrast": (0.0, 0.5, 1.0),
    "Invert": (0.0, 0.5, 1.0),
    "Equalize": (0.0, 0.5, 1.0),
    "Solarize": (0.0, 101.3, 256.0),
    "Posterize": (4.0, 6.0, 8.0),
    "Contrast": (0.1, 0.93, 1.9),
    "Color": (0.1, 1.07, 1.9),
    "Brightness": (0.1, 1.31, 1.9),
    "Sharpness": (0.1, 0.83, 1.9),
    "Cutout": (0.0, 0.07, 0.2),
}
PLACES = np.array([[0.02, 0.5], [0.97, 0.99], [0.4, 0.31]])


def pillow(image, name, amount, place):
    """As the authors of Fast AutoAugment call Pillow."""
    side, affine = image.width, Image.Transform.AFFINE
    if name == "Cutout":
        return cut_out(image, amount * side, place * side)
    transforms = {
        "ShearX": lambda: image.transform(image.size, affine, (1, amount, 0, 0, 1, 0)),
        "ShearY": lambda: image.transform(image.size, affine, (1, 0, 0, amount, 1, 0)),
        "TranslateX": lambda: image.transform(image.size, affine, (1, 0, amount * side, 0, 1, 0)),
        "TranslateY": lambda: image.transform(image.size, affine, (1, 0, 0, 0, 1, amount * side)),
        "Rotate": lambda: image.rotate(amount),
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Invert": lambda: ImageOps.invert(image),
        "Equalize": lambda: ImageOps.equalize(image),
        "Solarize": lambda: ImageOps.solarize(image, amount),
        "Posterize": lambda: ImageOps.posterize(image, int(amount)),
    }
    return transforms[name]() if name in transforms else getattr(ImageEnhance, name)(image).enhance(amount)


def cut_out(image, size, middle):
    if size <= 0:
        return image
    y, x = (int(max(0, each - size / 2)) for each in middle)
    far = [min(image.width, near + size) for near in (x, y)]
    image = image.copy()
    ImageDraw.Draw(image).rectangle((x, y, *far), (125, 123, 114))
    return image


def with_policy(pixels, images, drawn, recipe=RECIPE):
    (ours,) = rendered(pixels, recipe, images, [identity_params(whole(len(images)))._replace(policy=drawn)])
    return ours


CASES = [(name, amount, place) for name in AMOUNTS for amount, place in zip(AMOUNTS[name], PLACES, strict=True)]
IMAGES = [natural(n) // 2 + 40 for n in range(3)]  # with room for AutoContrast


@pytest.fixture(scope="module", params=["torch", "dali"])
def views(request):
    """The back-end, and what it makes of each case: one graph for all, as each does all."""
    operation = np.array([[NAMES.index(name), 0] for name, *_ in CASES])
    amount, place = (np.stack([np.array(part), np.zeros_like(part)], 1) for part in list(zip(*CASES, strict=True))[1:])
    images = [IMAGES[n % 3] for n in range(len(CASES))]
    return request.param, dict(
        zip(AMOUNTS, batched(with_policy(request.param, images, AutoAugmentParams(operation, amount, place))), strict=True)
    )


def batched(rows):
    return [rows[first : first + 3] for first in range(0, len(rows), 3)]


@pytest.mark.parametrize("name", AMOUNTS)
def test_an_operation_is_pillows(views, name):
    """torch's bit for bit; DALI's within a level, but for a pixel in a thousand that rounding takes from its neighbour."""
    pixels, ours = views
    for image, amount, place, view in zip(IMAGES, AMOUNTS[name], PLACES, ours[name], strict=True):
        difference = np.abs(view - np.asarray(pillow(Image.fromarray(image), name, amount, place), float))
        if pixels == "torch":
            assert difference.max() <= 1e-3
        elif name in WARPS:
            assert (difference > 1e-3).mean() <= 0.001
        else:
            assert difference.max() <= 1 + 1e-3
            assert difference.mean() <= (0.3 if name == "Equalize" else 0.02)


@pytest.mark.parametrize("pixels", ["torch", "dali"])
def test_two_operations_are_pillows_one_after_the_other(pixels):
    """As drawn. What is left in DALI: a level that one operation rounds another way, the next may stretch."""
    count = 60
    drawn = autoaugment.draw(RECIPE, count, generator(0, stream="test"))
    images = [natural(n) for n in range(count)]
    for n, view in enumerate(with_policy(pixels, images, drawn)):
        expected = Image.fromarray(images[n])
        for k in range(2):
            if drawn.operation[n, k]:
                expected = pillow(expected, NAMES[drawn.operation[n, k]], drawn.amount[n, k], drawn.place[n, k])
        difference = np.abs(view - np.asarray(expected, float))
        assert difference.mean() <= (1e-3 if pixels == "torch" else 1)


@pytest.fixture(scope="module")
def drawn():
    """The two views of N images."""
    return sample_view_params(STRONG128, np.tile([[120, 90]], (N, 1)), 0, 0, 0)


def five_sigma(p):
    return 5 * np.sqrt(p * (1 - p) / N)


def test_operations_come_as_often_as_the_table_says(drawn):
    """Each pair is as likely as any, and its operations come with their own probabilities."""
    operations, probabilities, _ = autoaugment.table()
    assert operations.shape == (498, 2)
    for view in drawn:
        for k in range(2):
            for number in range(1, len(NAMES)):
                p = np.where(operations[:, k] == number, probabilities[:, k], 0).mean()
                assert (view.policy.operation[:, k] == number).mean() == pytest.approx(p, abs=five_sigma(p))


def test_pairs_are_uniform(drawn):
    """Told by their amounts, as far as these tell them apart: chi-squared of their counts, 5 standard deviations."""
    amounts, expected = np.unique(np.abs(autoaugment.table()[2]).round(9), axis=0, return_counts=True)
    for view in drawn:
        found, counts = np.unique(np.abs(view.policy.amount).round(9), axis=0, return_counts=True)
        assert np.array_equal(found, amounts)
        expectation = expected * N / 498
        freedom = len(amounts) - 1
        assert abs(((counts - expectation) ** 2 / expectation).sum() - freedom) < 5 * np.sqrt(2 * freedom)


def test_amounts_are_in_range_and_warps_go_either_way(drawn):
    ways = []
    for view in drawn:
        for number, (name, (low, high)) in enumerate(RANGES.items()):
            amount = view.policy.amount[view.policy.operation == number]
            assert name == "None" or ((low - 1e-9 <= amount) & (amount <= high + 1e-9)).all()
        warped = np.isin(view.policy.operation, [NAMES.index(name) for name in WARPS])
        ways.append(np.sign(view.policy.amount) * warped)
    table = autoaugment.table()
    start = [np.sign(table[2][np.isin(table[0], [NAMES.index(name)])]).mean() for name in WARPS]
    assert np.abs(start).max() > 0.1  # the table leans one way, so that an even split is the coin's work
    assert all(abs(way[way != 0].mean()) < 5 / np.sqrt((way != 0).sum()) for way in ways)


def test_views_are_drawn_independently(drawn):
    first, second = drawn
    pairs = [np.abs(view.policy.amount).round(9) for view in drawn]
    _, counts = np.unique(np.abs(autoaugment.table()[2]).round(9), axis=0, return_counts=True)
    by_chance = ((counts / 498) ** 2).sum()
    assert (pairs[0] == pairs[1]).all(1).mean() == pytest.approx(by_chance, abs=five_sigma(by_chance))
    for a, b in ((first.policy.place.reshape(N, 4), second.policy.place.reshape(N, 4)), (first.light, second.light)):
        both = np.corrcoef(a.T, b.T)
        assert np.abs(both[: len(both) // 2, len(both) // 2 :]).max() < 5 / np.sqrt(N)


def test_light_varies_as_imagenets_colours_do(drawn):
    expected = 0.1**2 * pca_lighting.EIGENVECTORS @ np.diag(pca_lighting.EIGENVALUES**2) @ pca_lighting.EIGENVECTORS.T
    for view in drawn:
        assert np.abs(view.light.mean(0)).max() < 5 * np.sqrt(np.diag(expected).max() / N)
        np.testing.assert_allclose(np.cov(view.light.T), expected, rtol=5 * np.sqrt(2 / N))


def test_strong_draws_move_no_others():
    """Boxes and jitter are those of the same recipe without them; and those of imagenet128 are what they always were."""
    sizes = np.tile([[500, 375]], (2, 1))
    plainer = replace(STRONG128, policy="none", lighting=0.0)
    for strong, before in zip(
        sample_view_params(STRONG128, sizes, 3, 1, 2), sample_view_params(plainer, sizes, 3, 1, 2), strict=True
    ):
        assert np.array_equal(strong.box, before.box)
        assert all(np.array_equal(a, b) for a, b in zip(strong.jitter, before.jitter, strict=True))
        assert not before.policy.operation.any()
        assert not before.light.any()
    first, second = sample_view_params(RECIPES["imagenet128"], sizes, 0, 0, 0)
    assert first.box.tolist() == [[85, 196, 311, 477], [67, 212, 368, 438]]
    np.testing.assert_allclose(second.jitter.amount[0], [1.0739, 0.940733, 0.978031, 0.056382], atol=1e-6)


def test_light_is_added_last():
    """A view differs from the one without it by a colour, in parts of the recipe's standard deviation."""
    recipe = replace(PLAIN, lighting=0.1, gray_p=1.0)
    image, light = natural(0), np.array([[0.02, -0.01, 0.005]])
    for pixels in ("torch", "dali"):
        for color in ("exact", "fused"):
            lit, dark = (
                rendered(pixels, replace(recipe, color=color), [image], [identity_params(whole(1))._replace(light=each)])[0]
                for each in (light, 0 * light)
            )
            np.testing.assert_allclose(lit - dark, np.broadcast_to(light * 255, lit.shape), atol=1e-3)
