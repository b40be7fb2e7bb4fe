"""The learning rate: the rise, the milestones, the cosine."""

from dataclasses import replace

import pytest

from amdim.engine.optim.lr_schedule import learning_rate
from amdim.engine.presets import IMAGENET_SMALL

STEPS = 10_000


def test_rises_linearly_over_the_warm_up():
    rates = [learning_rate(IMAGENET_SMALL, step, STEPS) for step in (0, 249, 499, 500)]
    assert rates == pytest.approx([2e-4 / 500, 1e-4, 2e-4, 2e-4])


def test_a_fifth_at_each_milestone():
    rates = [learning_rate(IMAGENET_SMALL, step, STEPS) for step in (5999, 6000, 8999, 9000)]
    assert rates == pytest.approx([2e-4, 4e-5, 4e-5, 8e-6])


def test_cosine_ends_at_zero():
    cosine = replace(IMAGENET_SMALL, schedule="cosine")
    assert learning_rate(cosine, 500, STEPS) == pytest.approx(2e-4)
    assert learning_rate(cosine, 500 + (STEPS - 500) // 2, STEPS) == pytest.approx(1e-4)
    assert learning_rate(cosine, STEPS, STEPS) == pytest.approx(0, abs=1e-12)
    assert learning_rate(cosine, STEPS - 1, STEPS) > 0
