"""The presets fit together, and each data set has one."""

import pytest

from amdim.engine.presets import PRESETS, default_preset, with_views
from amdim.errors import UsageError
from amdim.model.encoder import SIZES
from amdim.pipeline.augment.recipes import RECIPES


@pytest.mark.parametrize("name", PRESETS)
def test_encoder_and_recipe_agree_on_the_size(name):
    preset = PRESETS[name]
    assert RECIPES[preset.recipe].size == preset.encoder.size
    assert preset.schedule in ("cosine", "step")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_an_encoder_for_views_of_any_size(name, size):
    preset = with_views(PRESETS[name], "own", size)
    assert (preset.recipe, preset.encoder.size, preset.encoder.width) == ("own", size, PRESETS[name].encoder.width)


def test_an_encoder_of_another_size_than_its_views_is_refused():
    assert with_views(PRESETS["demo"], "own", 64, 64).encoder.size == 64
    with pytest.raises(UsageError, match=r"\[encoder\] size = 32: views of recipe own have 64 pixels; set size in \[views\]"):
        with_views(PRESETS["demo"], "own", 64, 32)


NAMES = ["shapes", "fashion-mnist", "cifar10", "cifar100", "stl10", "imagenet", "places205", "my-microscope"]


@pytest.mark.parametrize("data", NAMES)
@pytest.mark.parametrize("gpu", [True, False])
def test_every_data_set_has_a_preset(data, gpu):
    assert default_preset(data, gpu) in PRESETS


def test_data_sets_have_the_presets_that_are_made_for_them():
    found = {data: tuple(default_preset(data, gpu) for gpu in (True, False)) for data in NAMES[:5]}
    assert found == {
        "shapes": ("demo", "demo"),
        "fashion-mnist": ("fashion-mnist", "fashion-mnist"),
        "cifar10": ("cifar10-large", "laptop32"),
        "cifar100": ("cifar10-large", "laptop32"),
        "stl10": ("stl10", "laptop64"),
    }


def test_the_papers_numbers():
    """Of github.com/Philip-Bachman/amdim-public: its optimizer for all, its milestones by data set."""
    for name in ("imagenet-small", "imagenet-medium", "imagenet-large", "stl10", "cifar10-small", "cifar10-large"):
        preset = PRESETS[name]
        assert (preset.weight_decay, preset.beta1, preset.beta2, preset.clip) == (1e-5, 0.8, 0.999, 20)
        assert preset.milestones == ((0.6, 0.9) if name.startswith("imagenet") else (250 / 300, 280 / 300))


def test_photographs_get_the_papers_encoder_on_a_gpu_and_a_small_one_without():
    assert default_preset("imagenet", gpu=True) == "imagenet-small"
    assert PRESETS["imagenet-small"].encoder.width == 192
    assert default_preset("imagenet", gpu=False) == "laptop128"


@pytest.mark.parametrize("data", NAMES)
def test_without_a_gpu_encoders_are_small(data):
    assert PRESETS[default_preset(data, gpu=False)].encoder.width <= 32
