"""Both pixel back-ends against Pillow's arithmetic, operation by operation, and against each other on whole views."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from amdim.pipeline.augment import color_jitter, jitter_params
from amdim.pipeline.augment.cpu import CpuAugmenter, there_and_back
from amdim.pipeline.augment.recipes import CIFAR32, RECIPES, STL64
from amdim.pipeline.augment.view_params import identity_params, mirrored, sample_view_params, slice_params
from amdim.pipeline.dali import BatchRequest, make_views
from tests.pipeline.loaders import end_by_loops

S = 48
PLAIN = replace(STL64, size=S, resize=S)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def natural(number, size=(S, S)):
    """Something like a photograph: smooth, with an edge, dark and bright places, saturated and gray ones."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse).astype(np.float64) + rng.normal(0, 1, (size[1], size[0], 3))
    pixels[: size[1] // 3, : size[0] // 4] = rng.integers(0, 256, 3)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def encode(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return np.frombuffer(file.getvalue(), np.uint8)


def rendered(pixels, recipe, images, draws):
    """Views in levels 0..255, (n, S, S, 3)."""
    job = iter(lambda: BatchRequest([encode(image) for image in images], draws), None)
    cpu = torch.device("cpu")
    views = next(make_views(job, recipe, len(draws), len(images), cpu, pixels, 2, Path("set")))
    undo = torch.tensor(recipe.std), torch.tensor(recipe.mean)
    return [((view.permute(0, 2, 3, 1) * undo[0] + undo[1]) * 255).numpy() for view in views]


def whole(count):
    return np.tile([0, 0, S, S], (count, 1))


def one_operation(operation, amounts):
    neutral = jitter_params.none(len(amounts))
    neutral.amount[:, operation] = amounts
    return neutral


def hsv_turned(pixels, turns):
    """HSV's textbook arithmetic in float64, with the standard library's conversions."""
    import colorsys

    rows = [colorsys.rgb_to_hsv(*pixel) for pixel in (pixels / 255).reshape(-1, 3)]
    return np.array([colorsys.hsv_to_rgb((h + turns) % 1, s, v) for h, s, v in rows]).reshape(pixels.shape) * 255


def pillow(pixels, operation, amount):
    if operation == HUE:
        return hsv_turned(pixels, amount)
    enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[operation]
    return np.asarray(enhancer(Image.fromarray(pixels)).enhance(amount), np.float64)


AMOUNTS = {BRIGHTNESS: (0.6, 0.93, 1.4), CONTRAST: (0.6, 1.07, 1.4), SATURATION: (0.6, 1.2, 1.4), HUE: (-0.2, 0.03, 0.2)}


@pytest.mark.parametrize("pixels", ["dali", "torch"])
@pytest.mark.parametrize("operation", AMOUNTS, ids=["brightness", "contrast", "saturation", "hue"])
def test_an_operation_is_pillows(pixels, operation):
    images = [natural(n) for n in range(3)]
    (ours,) = rendered(
        pixels, PLAIN, images, [identity_params(whole(3))._replace(jitter=one_operation(operation, AMOUNTS[operation]))]
    )
    worst, mean = (2, 0.1) if operation == HUE else (1, 0.02)
    for image, amount, view in zip(images, AMOUNTS[operation], ours, strict=True):
        expected = pillow(image, operation, amount)
        assert np.abs(view - expected).max() <= worst + 1e-3  # against HSV that is not rounded
        assert np.abs(view - np.floor(expected + 0.5)).mean() <= mean


@pytest.mark.parametrize("pixels", ["dali", "torch"])
def test_gray_is_pillows(pixels):
    images = [natural(n) for n in range(3)]
    (ours,) = rendered(
        pixels, PLAIN, images, [identity_params(whole(3))._replace(jitter=jitter_params.none(3)._replace(gray=np.ones(3, bool)))]
    )
    expected = [np.asarray(Image.fromarray(image).convert("L"), np.float64)[..., None].repeat(3, 2) for image in images]
    np.testing.assert_allclose(ours, expected, atol=1e-3)


@pytest.mark.parametrize("pixels", ["dali", "torch"])
def test_four_operations_in_any_order_are_pillows_one_after_another(pixels):
    """Rounded where Pillow rounds. What is left: hue may round a tie the other way, and contrast may stretch that level."""
    rng = np.random.default_rng(3)
    count = 12
    drawn = jitter_params.draw(replace(PLAIN, jitter_p=1.0, gray_p=0.3), count, rng)
    images = [natural(n) for n in range(count)]
    (ours,) = rendered(pixels, PLAIN, images, [identity_params(whole(count))._replace(jitter=drawn)])
    for n, image in enumerate(images):
        expected = image
        for operation in drawn.order[n]:
            expected = np.floor(pillow(expected, operation, drawn.amount[n, operation]) + 0.5).astype(np.uint8)
        if drawn.gray[n]:
            expected = np.asarray(Image.fromarray(expected).convert("L"))[..., None].repeat(3, 2)
        difference = np.abs(ours[n] - expected)
        assert difference.max() <= 4 + 1e-3
        assert difference.mean() <= 0.1


@pytest.mark.parametrize("pixels", ["dali", "torch"])
@pytest.mark.parametrize("size", [(60, 40), (200, 150), (500, 375)], ids=["enlarged", "shrunk", "shrunk much"])
def test_a_crop_is_pillows_antialiased_bicubic(pixels, size):
    images = [natural(n, size) for n in range(4)]
    boxes = np.array([[3, 5, 33, 35], [0, 0, 40, 60], [10, 20, 25, 59], [1, 2, 39, 20]])
    (ours,) = rendered(pixels, PLAIN.centred(), images, [identity_params(boxes)])
    for view, image, (top, left, bottom, right) in zip(ours, images, boxes, strict=True):
        crop = Image.fromarray(image).crop((left, top, right, bottom)).resize((S, S), Image.Resampling.BICUBIC)
        difference = np.abs(view - np.asarray(crop, np.float64))
        assert difference.max() <= 3 + 1e-3
        assert difference.mean() <= 0.2


@pytest.mark.parametrize("pixels", ["dali", "torch"])
def test_a_box_is_mirrored_turned_over_and_transposed_as_drawn(pixels):
    """All eight symmetries, of a box that is not square in the image."""
    image, box = natural(0, (60, 40)), np.array([3, 5, 33, 55])
    drawn = np.array([[across, down, swap] for across in (0, 1) for down in (0, 1) for swap in (0, 1)], bool)
    boxes = mirrored(np.tile(box, (8, 1)), drawn[:, 0], drawn[:, 1])
    recipe = replace(PLAIN, flip_vertical=0.5, transpose=0.5, jitter_p=0.0, gray_p=0.0)
    (ours,) = rendered(pixels, recipe, [image] * 8, [identity_params(boxes)._replace(transposed=drawn[:, 2])])
    crop = np.asarray(Image.fromarray(image).crop((5, 3, 55, 33)).resize((S, S), Image.Resampling.BICUBIC), np.float64)
    for view, (across, down, swap) in zip(ours, drawn, strict=True):
        expected = crop[:, ::-1] if across else crop
        expected = expected[::-1] if down else expected
        expected = expected.transpose(1, 0, 2) if swap else expected
        assert np.abs(view - expected).max() <= 3 + 1e-3
        assert np.abs(view - expected).mean() <= 0.2


OWN = {
    "strong, fused": replace(STL64, color="fused", policy="fast-autoaugment", lighting=0.1),
    "operations and light alone": replace(STL64, jitter_p=0.0, gray_p=0.0, policy="fast-autoaugment", lighting=0.1),
    "fused": replace(STL64, color="fused"),
    "microscope": replace(STL64, saturation=0.0, hue=0.0, gray_p=0.0, flip_vertical=0.5, transpose=0.5),
    "shift upside down": replace(CIFAR32, flip_vertical=0.5, transpose=0.5),
}


@pytest.mark.parametrize("name", [*RECIPES, *OWN])
@pytest.mark.parametrize("whole", [True, False])
def test_back_ends_make_the_same_views(name, whole, monkeypatch):
    """Whole views from the same draws. Resampling differs by a level or two, which later operations may stretch by 1.4 each.

    A graph that is not whole ends in levels, as it does on a GPU, where Triton's kernels go on; here loops for the CPU do.
    """
    if not whole:
        end_by_loops(monkeypatch)
    recipe = (RECIPES | OWN)[name]
    images = [natural(n, (90 - n, 70 + n)) for n in range(8)]
    if recipe.crop == "shift":
        images = [natural(n, (32, 32)) for n in range(8)]
    sizes = np.array([[image.shape[1], image.shape[0]] for image in images])
    draws = list(sample_view_params(recipe, sizes, 1, 0, 0))
    for a, b in zip(rendered("dali", recipe, images, draws), rendered("torch", recipe, images, draws), strict=True):
        difference = np.abs(a - b)
        assert np.quantile(difference, 0.999) <= 3 * 1.4**3
        assert difference.mean() <= 0.4


@pytest.mark.parametrize("count", [1, 2, 3, 32])
def test_reflection_is_numpys(count):
    for first in range(-9, 10):
        expected = np.pad(np.arange(count), 9, "reflect")[9 + first : 9 + first + count]
        assert there_and_back(first, count).tolist() == expected.tolist()


@pytest.mark.parametrize("color", ["exact", "fused"])
def test_views_are_the_same_bits_for_any_threads_and_company(color):
    """An image's view depends on no other image of the batch, nor on what was painted before it in the same memory."""
    recipe = replace(PLAIN, color=color)
    images = [natural(n, (90 - n, 70 + n)) for n in range(9)]
    sizes = np.array([[image.shape[1], image.shape[0]] for image in images])
    draws = list(sample_view_params(recipe, sizes, 1, 0, 0))
    whole = CpuAugmenter(recipe, 1).views(images, draws)
    for threads in (2, 3, 16):
        assert all(torch.equal(a, b) for a, b in zip(whole, CpuAugmenter(recipe, threads).views(images, draws), strict=True))
    painter = CpuAugmenter(recipe, 2)
    for first in range(0, 9, 2):
        rows = slice(first, first + 2)
        part = painter.views(images[rows], [slice_params(view, rows) for view in draws])
        assert all(torch.equal(a[rows], b) for a, b in zip(whole, part, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2)])
def test_tiny_images_are_shifted_alike(shape):
    images = [natural(n, shape) for n in range(4)]
    draws = list(sample_view_params(CIFAR32, np.tile([shape], (4, 1)), 0, 0, 0))
    for a, b in zip(rendered("dali", CIFAR32, images, draws), rendered("torch", CIFAR32, images, draws), strict=True):
        assert np.abs(a - b).mean() <= 3


def test_chain_puts_operations_around_hue_in_the_drawn_order():
    drawn = jitter_params.JitterParams(
        np.array([[0.7, 0.8, 1.2, 0.1]]), np.array([[SATURATION, HUE, BRIGHTNESS, CONTRAST]]), np.array([True])
    )
    chain = color_jitter.chain(drawn)
    identity = [1, 0, 0]
    expected = [[1.2, 1 - 1.2, 0], identity, identity, identity, [0.7, 0, 0], [0.8, 0, 1 - 0.8]]
    np.testing.assert_allclose(chain.blend[0], expected)
    assert chain.hue.tolist() == [0.1]
    assert chain.gray.tolist() == [True]
