"""Training in the fast arrangement follows training in the original's: same weights, batches and draws, loss by loss."""

from dataclasses import replace

import pytest
import torch

from amdim.engine.precision import choose
from amdim.engine.presets import PRESETS
from amdim.model import AMDIM, EncoderConfig, conv_matmul
from amdim.model.encoder import Features, ResidualUnit
from amdim.model.multiscale_nce import multiscale_nce
from bench.original import OriginalUnit, masked_objective, rearrange
from bench.step import Arrangement, build, ladder

CPU = torch.device("cpu")
B = 16
PRESET = replace(PRESETS["demo"], encoder=EncoderConfig(32, 8, 64, 2), batch=B)
ORIGINAL = Arrangement()
FAST = list(ladder(compiled=False, gpu=False).values())[-1]


def batch(step):
    """Two views with something in common, of four batches in turn: so there is something to learn in few steps."""
    generator = torch.Generator().manual_seed(step % 4)
    image = torch.randn(B, 3, 8, 8, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    x1, x2 = (image + 0.3 * torch.randn(B, 3, 32, 32, generator=generator) for _ in range(2))
    return x1, x2, torch.arange(B) % 10, torch.randint(25, (2, B), generator=generator)


def losses(how, steps, encoder=PRESET.encoder):
    model, optimizer = build(replace(PRESET, encoder=encoder), how, CPU)
    layout = torch.channels_last if how.channels_last else torch.contiguous_format
    found = []
    for step in range(steps):
        x1, x2, labels, locations = batch(step)
        with choose(how.amp, CPU).autocast(CPU):
            total = model(x1.contiguous(memory_format=layout), x2.contiguous(memory_format=layout), labels, locations).total
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        found.append(total.item())
    return torch.tensor(found, dtype=torch.float64)


def distance(a, b):
    """Root mean square of relative differences."""
    return ((a - b) / b).square().mean().sqrt().item()


@pytest.mark.parametrize("use_bn", [False, True])
def test_in_float32_the_first_losses_are_the_same(use_bn):
    encoder = replace(PRESET.encoder, use_bn=use_bn)
    original = losses(ORIGINAL, 12, encoder)
    assert original[-1] < original[0]
    torch.testing.assert_close(losses(replace(FAST, amp="off"), 12, encoder), original, rtol=1e-3, atol=0)


def follows(steps):
    """Whether bfloat16 in the fast arrangement strays as little from float32 as autocast alone takes the original's.

    Small differences grow from step to step, also between two ways of float32: hence a factor.
    """
    original = losses(ORIGINAL, steps)
    assert original[-10:].mean() < 0.9 * original[:10].mean()  # it learns
    autocast, fast = (distance(losses(how, steps), original) for how in (replace(ORIGINAL, amp="bf16"), FAST))
    assert fast < 3 * autocast, f"fast {fast:.2e}, autocast alone {autocast:.2e}"
    assert fast < 0.05


def test_losses_follow_the_originals_over_40_steps():
    follows(40)


@pytest.mark.long
def test_losses_follow_the_originals_over_200_steps():
    follows(200)


def test_each_step_of_the_ladder_is_another_arrangement_of_the_same_step(monkeypatch):
    """In float64 they are the same numbers, gradients too."""
    expected, serve = None, conv_matmul.serve
    for how in ladder(compiled=False, gpu=False).values():
        monkeypatch.setattr(conv_matmul, "serve", serve if how.products else lambda _: False)
        model, _ = build(PRESET, replace(how, amp="off"), CPU)
        model.double()
        x1, x2, labels, locations = batch(0)
        torch.manual_seed(1)
        total = model(x1.double(), x2.double(), labels, locations).total
        found = [total, *torch.autograd.grad(total, list(model.parameters()))]
        expected = expected or found
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10 * max(1, theirs.abs().max().item()))


def test_the_original_is_put_in_place_of_every_unit_and_no_weight_is_renamed():
    model = AMDIM(PRESET.encoder, 3)
    names = list(model.state_dict())
    rearrange(model)
    units = [type(part) for part in model.modules() if isinstance(part, ResidualUnit)]
    assert set(units) == {OriginalUnit}
    assert list(model.state_dict()) == names


def test_the_masked_objective_is_ours():
    torch.manual_seed(0)
    view1, view2 = (Features(*(torch.randn(5, 8, s, s, dtype=torch.float64) for s in (1, 5, 7))) for _ in range(2))
    locations = torch.randint(25, (2, 5))
    for mine, theirs in zip(
        multiscale_nce(view1, view2, locations, 10), masked_objective(view1, view2, locations, 10), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
