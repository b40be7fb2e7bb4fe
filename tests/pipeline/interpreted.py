"""What ends views on a GPU, in Triton's interpreter: ``test_painted`` runs this in a process of its own."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
import triton

from amdim.pipeline import RECIPES
from amdim.pipeline.augment import autoaugment_cpu, autoaugment_triton, color_jitter_triton
from amdim.pipeline.augment.autoaugment import NAMES, RANGES, AutoAugmentParams, as_steps
from amdim.pipeline.augment.gpu import augment_on_gpu, tables
from amdim.pipeline.augment.view_params import sample_view_params
from bench.gpu_views import ended

assert triton.knobs.runtime.interpret, "run with TRITON_INTERPRET=1"

SMALL = {name: replace(recipe, size=37) for name, recipe in RECIPES.items()}  # a square that no block of pixels divides
OTHERS = {
    "fused, with lighting": replace(SMALL["imagenet128"], color="fused", lighting=0.1),
    "always jittered": replace(SMALL["imagenet128"], jitter_p=1.0, gray_p=0.0),
    "evaluation": SMALL["strong128"].centred(),
    "larger": replace(RECIPES["strong128"], size=64, jitter_p=1.0),
}
RECIPES_HERE = SMALL | OTHERS
N = 6
FUSED = 2.0**-8  # of views of some units: sums in another order, then rounded to half precision


@pytest.fixture(autouse=True)
def small_blocks():
    """Several blocks of pixels an image, the last of them not full."""
    with patch.object(color_jitter_triton, "BLOCK", 512), patch.object(autoaugment_triton, "BLOCK", 512):
        yield


def levels(count, side, rng):
    """Noise, noise of few levels, and one level alone."""
    made = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    made[::3] = rng.integers(90, 140, made[::3].shape)
    made[1::7] = 77
    return made


@pytest.mark.parametrize("name", RECIPES_HERE)
def test_views_are_those_of_the_cpu_in_half_precision(name):
    """Bit for bit, operations and colours; fused colours to the rounding of a sum."""
    recipe, count = RECIPES_HERE[name], 2 if name == "larger" else N
    pixels = levels(count, recipe.size, np.random.default_rng(1))
    draws, other = sample_view_params(recipe, np.tile([200, 230], (count, 1)), seed=3, epoch=0, step=0)
    found = augment_on_gpu(torch.from_numpy(pixels), tables(recipe, draws, torch.device("cpu")))
    expected = ended(pixels, recipe, draws)
    assert found.dtype is torch.float16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(expected, ended(pixels, recipe, other)) or name == "evaluation"
    if recipe.color == "fused":
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=FUSED)
    else:
        assert torch.equal(found, expected.half())


def cases(side):
    """Every operation at its least, middle and largest amount, and each way; a second one after it."""
    rng = np.random.default_rng(side)
    first = [(number, share) for number, name in enumerate(NAMES) for share in ((0.0, 0.4, 1.0) if name in RANGES else (0.0,))]
    operation = np.array([(number, rng.integers(len(NAMES))) for number, _ in first])
    low, high = np.array([RANGES.get(name, (0, 0)) for name in NAMES], float)[operation].transpose(2, 0, 1)
    share = np.array([(each, rng.random()) for _, each in first])
    amount = low + share * (high - low)
    amount = np.where(operation == NAMES.index("Posterize"), np.floor(amount), amount)
    return AutoAugmentParams(operation, amount, rng.random((*operation.shape, 2)))


@pytest.mark.parametrize("side", [27, 32])
def test_every_operation_is_the_one_of_the_cpu(side):
    policy = cases(side)
    pixels = levels(len(policy.operation), side, np.random.default_rng(side))
    drawn = (torch.from_numpy(table) for table in autoaugment_triton.tables(policy, side))
    found = autoaugment_triton.operated(torch.from_numpy(pixels), *drawn).numpy()
    parameters, moved = autoaugment_cpu.prepare(as_steps(policy, side)), set()
    for i, image in enumerate(pixels):
        planes = np.ascontiguousarray(image.reshape(-1, 3).T)
        spare = np.empty_like(planes)
        for k in np.flatnonzero(policy.operation[i]):
            before = planes.copy()
            autoaugment_cpu.apply(planes, spare, *(part[i, k] for part in parameters))
            moved |= {NAMES[policy.operation[i, k]]} if (before != planes).any() else set()
        name = [NAMES[number] for number in policy.operation[i]]
        assert np.array_equal(found[i], planes.T.reshape(image.shape)), (name, policy.amount[i])
    assert moved == set(NAMES) - {NAMES[0]}, "an operation that changes nothing tests nothing"
