"""Segmentation measured on cases whose answer is known, and through the command line."""

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from amdim.evaluation.segmentation.masks import read_masks
from amdim.evaluation.segmentation.receptive_field import FIELDS, pool, upsample
from amdim.evaluation.segmentation.segmentation_metrics import best_iou, choose_foreground, iou, join, overlap
from amdim.evaluation.segmentation.segmenters import Seen, mixture_posterior, segmenters
from amdim.model.encoder import Encoder, EncoderConfig
from amdim.pipeline import RECIPES
from amdim.shards.build import build
from amdim.shards.images.encode import encode_png
from amdim.shards.shapes import renderer
from tests.test_train import run


@pytest.fixture(scope="module")
def set_with_masks(tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "shapes"
    source = renderer.source(0, {"train": 60, "val": 20})
    build(source, out, seed=0, workers=1, max_rejected=0.0, overwrite=False, show=lambda _: None)
    return out


@pytest.mark.parametrize("size", [32, 64, 128])
def test_fields_are_what_a_location_sees(size):
    """The gradient of a location reaches the pixels of its field, and no other."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(size, 4, 32, 1)).double()
    for parameter in encoder.parameters():
        parameter.data.abs_().add_(0.01)
    x, field = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True), FIELDS[size]
    maps = encoder.to_7(x)
    for place in (1, 3, 5):  # away from the border, where padding reflects
        (gradient,) = torch.autograd.grad(maps[0, :, place, 6 - place].sum(), x, retain_graph=True)
        seen = gradient[0].abs().sum(0) > 0
        for length, at in ((seen.any(1), place), (seen.any(0), 6 - place)):
            first = at * field.stride - field.pad
            assert length.nonzero().flatten().tolist() == list(range(first, first + field.side))


@pytest.mark.parametrize("size", [32, 64, 128])
def test_pooling_and_laying_out_keep_a_ramp_where_it_is(size):
    ramp = (torch.arange(size) + 0.5).expand(1, 1, size, size) / size
    laid = upsample(pool(ramp, FIELDS[size]), FIELDS[size], size, 64)[0, 0]
    expected = (torch.arange(64) + 0.5) / 64
    torch.testing.assert_close(laid[10], laid[50])
    torch.testing.assert_close(laid[30, 16:48], expected[16:48], atol=1e-5, rtol=0)
    assert (laid[:, 0] == laid[:, 1]).all()  # constant beyond the outermost centre


def test_laid_out_memberships_still_sum_to_one():
    maps = torch.rand(2, 3, 7, 7).softmax(1)
    torch.testing.assert_close(upsample(maps, FIELDS[128], 128, 64).sum(1), torch.ones(2, 64, 64))


def test_masks_are_those_that_were_drawn(set_with_masks):
    masks = read_masks(set_with_masks, "val", RECIPES["shapes32"])
    assert masks.shape == (20, 64, 64)
    drawn = {renderer.render(renderer.draw(0, "val", index))[1].tobytes() for index in range(20)}
    assert {(mask.numpy() * np.uint8(255)).tobytes() for mask in masks} == drawn
    torch.testing.assert_close(read_masks(set_with_masks, "val", RECIPES["shapes32"], 7), masks[:7])
    centre = read_masks(set_with_masks, "val", RECIPES["stl64"])  # shows the middle 64 of 70 pixels
    enlarged = Image.open(BytesIO(encode_png(masks[0].numpy() * np.uint8(255)))).resize((70, 70), Image.Resampling.NEAREST)
    assert (np.asarray(enlarged.crop((3, 3, 67, 67)).resize((64, 64)))[32] > 0).mean() == pytest.approx(
        centre[0, 32].float().mean().item(), abs=0.05
    )


def quarters():
    """An image whose mask is its left half, with four components: quarters from the left."""
    labels = torch.arange(4).repeat_interleave(2).expand(1, 8, 8)
    return labels, labels < 2


def test_agreement_of_quarters_with_a_half():
    found = overlap(*quarters(), components=4)
    assert found.inside.tolist() == [[16, 16, 0, 0]]
    assert found.outside.tolist() == [[0, 0, 16, 16]]
    assert best_iou(found).tolist() == [0.5]
    assert choose_foreground(found).tolist() == [True, True, False, False]
    assert iou(found, choose_foreground(found)).tolist() == [1]
    labels, masks = quarters()
    assert overlap(masks.long(), masks, 2).rand.tolist() == [1]
    assert overlap(torch.zeros_like(labels), masks, 4).rand.tolist() == [0]


def test_images_with_nothing_in_their_masks_are_left_out():
    labels, masks = quarters()
    both = join([overlap(labels, masks, 4), overlap(labels, torch.zeros_like(masks), 4)])
    assert len(both.inside) == len(both.outside) == len(both.rand) == 1
    assert best_iou(both).tolist() == [0.5]
    assert choose_foreground(both).tolist() == [True, True, False, False]
    none = join([overlap(labels, torch.zeros_like(masks), 4)])
    assert not choose_foreground(none).any()


def test_the_foreground_is_chosen_for_all_images_together():
    """Component 0 is the mask of two images and component 1 that of a third: 0 is foreground, and the third image pays for it."""
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[:, :, :4] = True
    labels = torch.stack([(~mask[0]).long(), (~mask[1]).long(), mask[2].long()])
    found = overlap(labels, mask, 2)
    assert best_iou(found).tolist() == [1, 1, 1]
    assert choose_foreground(found).tolist() == [True, False]
    assert iou(found, choose_foreground(found)).tolist() == [1, 1, 0]


def two_parts(n=6):
    """Images of two plain colours, whose features point along one axis or the other by colour."""
    part = torch.zeros(n, 7, 7, dtype=torch.long)
    for image in range(n):
        part[image, image % 3 : image % 3 + 3, 2:5] = 1
    axes = 8 * torch.eye(4)[:2]
    targets = axes[part].flatten(1, 2)
    rgb = torch.stack([part, 1 - part, part], 1).float().repeat_interleave(4, 2).repeat_interleave(4, 3)
    rgb = torch.nn.functional.pad(rgb, (2, 2, 2, 2), mode="replicate")
    return part, Seen(rgb, axes.expand(n, 2, 4).clone(), targets)


@pytest.mark.parametrize("name", ["mixture", "kmeans_r7", "kmeans_r7_by_image", "kmeans_colour", "kmeans_colour_by_image"])
def test_segmenters_find_two_parts(name):
    part, seen = two_parts()
    maps = segmenters(seen, FIELDS[32], 6, 20.0, 1.0)[name](seen)
    assert maps.shape == (6, 2, 7, 7)
    torch.testing.assert_close(maps.sum(1), torch.ones(6, 7, 7))
    found = overlap(maps.argmax(1), part == 1, 2)
    assert best_iou(found).min() > (0.99 if "colour" not in name else 0.7)  # fields of colours overlap


def test_the_random_posterior_is_random_and_seeded():
    _, seen = two_parts()
    one, other = (segmenters(seen, FIELDS[32], 6, 20.0, 1.0)["random"](seen) for _ in range(2))
    torch.testing.assert_close(one, other)
    assert one.std() > 0.1


def test_the_posterior_of_an_image_does_not_depend_on_others():
    _, seen = two_parts()
    generator = torch.Generator().manual_seed(0)
    noisy = Seen(seen.rgb, torch.randn(6, 3, 4, generator=generator), torch.randn(6, 49, 4, generator=generator))
    bank = torch.randn(9, 49, 4, generator=generator)
    together = mixture_posterior(noisy, bank, 16, 20.0, 1.0)
    alone = [mixture_posterior(Seen(*(part[i : i + 1] for part in noisy)), bank, 16, 20.0, 1.0) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_the_posterior_is_that_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    sources, targets, bank = (torch.randn(*shape, generator=generator).double() for shape in ((2, 3, 4), (2, 49, 4), (5, 49, 4)))
    score = lambda t: 20 * torch.tanh(torch.einsum("nkr,mlr->nkml", sources, t) / 2 / 20)  # noqa: E731
    negatives = score(bank).exp().sum((2, 3)) * 7 / 5
    own = torch.stack([score(targets)[i, :, i] for i in range(2)])
    expected = (own - (own.exp() + negatives[..., None]).log()).mul(2).softmax(1)
    found = mixture_posterior(Seen(torch.zeros(2, 3, 32, 32), sources, targets), bank, 8, 20.0, 0.5)
    torch.testing.assert_close(found.flatten(2), expected)


TINY = ("--gpus", "0", "--preset", "demo", "--batch-size", "16", "--amp", "off", "--steps", "2")


@pytest.fixture(scope="module")
def trained(set_with_masks, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("trained")
    run("train.py", "--data", set_with_masks, *TINY, "--mixture", "3", "--run", "mixed", cwd=cwd)
    return cwd


def test_segmenting_a_run(trained, set_with_masks):
    result = run("eval.py", "--segment", "--gpus", "0", cwd=trained)
    found = json.loads((trained / "runs" / "mixed" / "eval-segment.json").read_text())
    assert (found["probe"], found["step"], found["n_test"], found["data"]) == ("segment", 2, 20, str(set_with_masks))
    assert {"mixture", "random", "kmeans_r7", "kmeans_colour"} < found["methods"].keys()
    for name, scores in found["methods"].items():
        assert 0 < scores["iou_best"] < 1
        assert -1 < scores["ari"] < 1
        assert (scores["iou_fixed"] is None) == name.endswith("by_image")
    assert found["methods_train"].keys() == found["methods"].keys()
    assert found["n_train"] == 60
    assert found["methods"]["kmeans_pixels_by_image"]["iou_best"] > found["methods"]["random"]["iou_best"]
    with Image.open(trained / "runs" / "mixed" / "segments.png") as picture:
        assert picture.width > 1000
    assert "20 images with masks" in result.stdout


def test_the_run_records_its_mixture(trained, set_with_masks):
    directory = trained / "runs" / "mixed"
    assert json.loads((directory / "config.json").read_text())["settings"]["mixture"] == 3
    row = json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["loss_mixture"] > 0
    result = run("train.py", "--data", set_with_masks, *TINY, "--mixture", "2", "--run", "mixed", cwd=trained, code=2)
    assert "mixture" in result.stderr


def test_what_cannot_be_segmented_is_one_line(trained, set_with_masks, photo_set):
    run("train.py", "--data", set_with_masks, *TINY, "--run", "plain", cwd=trained)
    for arguments, says in ((["--run", "plain"], "--mixture"), (["--run", "mixed", "--data", photo_set], "no masks")):
        result = run("eval.py", "--segment", "--gpus", "0", *arguments, cwd=trained, code=2)
        assert says in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
