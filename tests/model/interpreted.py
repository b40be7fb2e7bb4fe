"""What ``partition_triton`` computes, in Triton's interpreter: ``test_partition_triton`` runs this in a process of its own.

Inputs are rounded to their type first, and the reference is float64 on those: what is left is the arithmetic's own error.
"""

import itertools

import pytest
import torch

from amdim.model import nce_triton
from amdim.model.encoder import Features
from amdim.model.multiscale_nce import multiscale_nce
from amdim.model.nce_triton import score_gradients, sums
from amdim.model.streaming_nce import nce_sums
from bench.original import masked_objective

assert nce_triton.INTERPRETED.value, "run with TRITON_INTERPRET=1"

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Every type at a shape with a seam and a ragged edge in rows, columns and depth; the odd ones in float32.
CASES = [
    *((dtype, 150, 7, 25, 100) for dtype in DTYPES),
    *((dtype, 9, 3, 49, 64) for dtype in DTYPES),
    (torch.float32, 600, 90, 1, 5),  # more row tiles than walk together
    (torch.float32, 3, 2, 13, 33),
    (torch.bfloat16, 1, 1, 1, 1),
]
# A gradient's last rounding: half a unit of float16's last place; a whole one of bfloat16's, where the interpreter cuts off and a
# GPU rounds. Beside it stands what float32 loses where the gradient's two parts, both of order 1, cancel.
ROUNDING = {torch.float32: 0, torch.float16: 2**-11, torch.bfloat16: 2**-7}
LOST = 5e-7


def problem(dtype, M, B, L, R, scale=1.5):
    """Owners repeat, lie a little outside the batch, and far outside."""
    draw = torch.Generator().manual_seed(M + B + L + R)
    sources, targets = (torch.randn(*shape, R, generator=draw).mul(scale).to(dtype) for shape in ((M,), (B, L)))
    owner = torch.randint(-2, B + 2, (M,), generator=draw)
    owner[: M // 3] = torch.tensor([0, B - 1, -(2**40), 2**40, B, -1]).repeat(M)[: M // 3]
    upstream = torch.randn(M, generator=draw), torch.randn(M, L, generator=draw), torch.randn((), generator=draw)
    return sources, owner, targets, upstream


def reference(sources, owner, targets, clip):
    """By the definition s = c tanh(x / c), in float64; also the products, to differentiate by."""
    y = torch.einsum("mr,jlr->mjl", sources.double(), targets.double()).requires_grad_()
    x = y / sources.shape[1] ** 0.5
    shifted = clip * torch.tanh(x / clip) - clip
    mine = owner[:, None] == torch.arange(len(targets))
    negatives = (shifted.exp() * ~mine[:, :, None]).sum((1, 2))
    positives = (shifted * mine[:, :, None]).sum(1)
    return y, (negatives, positives, x.square().sum())


def gradients_of(products, parts, upstream):
    return torch.autograd.grad(parts, products, [each.double() for each in upstream])[0].flatten(1)


@pytest.mark.parametrize(("dtype", "M", "B", "L", "R"), CASES)
def test_sums(dtype, M, B, L, R):
    sources, owner, targets, _ = problem(dtype, M, B, L, R)
    parts = sums(sources, owner, targets, 20.0)
    _, expected = reference(sources, owner, targets, 20.0)
    assert {part.dtype for part in parts} == {torch.float32}
    for mine, exact in zip(parts, expected, strict=True):
        torch.testing.assert_close(mine.double(), exact.detach(), rtol=2e-5, atol=0)
    assert parts[1][(owner < 0) | (owner >= B)].eq(0).all()


@pytest.mark.parametrize(("dtype", "M", "B", "L", "R"), CASES)
def test_score_gradients_slice_by_slice(dtype, M, B, L, R):
    sources, owner, targets, upstream = problem(dtype, M, B, L, R)
    y, parts = reference(sources, owner, targets, 20.0)
    expected = gradients_of(y, parts, upstream)
    edges = sorted({0, B // 3, B})
    slices = [score_gradients(sources, owner, targets, slice(*edge), 20.0, *upstream) for edge in itertools.pairwise(edges)]
    whole = torch.cat(slices, 1)
    assert whole.dtype is dtype
    torch.testing.assert_close(whole.double(), expected, rtol=ROUNDING[dtype] + 2e-5, atol=LOST)


@pytest.mark.parametrize("scale", [0.05, 10.0])
@pytest.mark.parametrize("clip", [5.0, 20.0, 35.0])
def test_clips_and_saturated_scores(clip, scale):
    """From scores near 0 to scores of some hundred, either side of every clip."""
    sources, owner, targets, upstream = problem(torch.float32, 40, 6, 9, 40, scale)
    y, expected = reference(sources, owner, targets, clip)
    for mine, exact in zip(sums(sources, owner, targets, clip), expected, strict=True):
        torch.testing.assert_close(mine.double(), exact.detach(), rtol=1e-4, atol=1e-12)
    mine = score_gradients(sources, owner, targets, slice(0, 6), clip, *upstream).double()
    exact = gradients_of(y, expected, upstream)
    assert (mine - exact).norm() <= 1e-6 * exact.norm()
    without_squares = [*upstream[:2], torch.zeros(())]
    mine = score_gradients(sources, owner, targets, slice(0, 6), clip, *without_squares).double()
    torch.testing.assert_close(
        mine, gradients_of(*reference(sources, owner, targets, clip), without_squares), rtol=1e-4, atol=LOST
    )


def test_several_launches_add_up(monkeypatch):
    sources, owner, targets, _ = problem(torch.float32, 20, 11, 25, 8)
    whole = sums(sources, owner, targets, 20.0)
    monkeypatch.setattr(nce_triton, "PARTIALS", 2)
    for one, other in zip(whole, sums(sources, owner, targets, 20.0), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


def test_views_and_expanded_gradients():
    """Targets as locations of a channels-last map, sources as columns of something wider, gradients of a plain sum."""
    sources, owner, _, _ = problem(torch.float32, 20, 4, 25, 24)
    maps = torch.randn(4, 12, 5, 5).contiguous(memory_format=torch.channels_last)
    targets = maps.flatten(2).transpose(1, 2)
    views, copies = (sources[:, ::2], targets), (sources[:, ::2].clone(), targets.clone())
    ones = [torch.ones(()).expand(shape) for shape in ((20,), (20, 25), ())]
    for one, other in zip(sums(views[0], owner, views[1], 20.0), sums(copies[0], owner, copies[1], 20.0), strict=True):
        assert torch.equal(one, other)
    one, other = (score_gradients(s, owner, t, slice(1, 4), 20.0, *ones) for s, t in (views, copies))
    assert torch.equal(one, other)
    y, parts = reference(copies[0], owner, copies[1], 20.0)
    torch.testing.assert_close(one.double(), gradients_of(y, parts, ones)[:, 25:], rtol=2e-5, atol=LOST)


def test_float64_is_refused():
    sources, owner, targets, _ = problem(torch.float64, 2, 2, 2, 2)
    with pytest.raises(ValueError, match="implementation='torch'"):
        nce_sums(sources, owner, targets, 20.0, "triton")


@pytest.mark.parametrize("dtype", DTYPES)
def test_partition_is_the_same_in_both_forms(dtype, monkeypatch):
    """With several workspaces, the last one smaller."""
    monkeypatch.setattr(nce_triton, "images_a_tile", lambda *_: 4)
    sources, owner, targets, upstream = problem(dtype, 30, 10, 25, 48)
    results = []
    for form in ("torch", "triton"):
        inputs = [each.clone().requires_grad_() for each in (sources, targets)]
        parts = nce_sums(inputs[0], owner, inputs[1], 20.0, form)
        results.append((parts, torch.autograd.grad(parts, inputs, upstream)))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=0)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert (one.double() - other.double()).norm() <= (ROUNDING[dtype] + 1e-6) * one.double().norm()


@pytest.mark.parametrize(("dtype", "B"), [(torch.float32, 6), (torch.float32, 23), (torch.bfloat16, 6), (torch.float16, 6)])
def test_whole_objective_is_that_of_masked_scores(dtype, B):
    """Losses and gradients against all pairs written out in float64, as the original has them; B 23 fills several tiles."""
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(B, 40, side, side, generator=draw).to(dtype) for side in (1, 5, 7, 1, 5, 7)]
    locations = torch.randint(0, 25, (2, B), generator=draw)
    leaves = [each.clone().requires_grad_() for each in maps]
    wide = [each.double().requires_grad_() for each in maps]
    loss = multiscale_nce(Features(*leaves[:3]), Features(*leaves[3:]), locations, implementation="triton")
    exact = masked_objective(Features(*wide[:3]), Features(*wide[3:]), locations, 20.0)
    torch.testing.assert_close(torch.stack(loss).double(), torch.stack(exact), rtol=1e-5, atol=0)
    gradients = torch.autograd.grad(loss.total, leaves), torch.autograd.grad(exact.total, wide)
    for one, other in zip(*gradients, strict=True):
        assert (one.double() - other).norm() <= (2 * ROUNDING[dtype] + 1e-5) * other.norm()
