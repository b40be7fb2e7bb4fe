"""The objective against a formula written out pair by pair in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from amdim.model import nce_torch
from amdim.model.encoder import Features
from amdim.model.multiscale_nce import multiscale_nce, nce
from amdim.model.streaming_nce import nce_sums
from bench.masked import masked_nce
from bench.nce import plain_nce


def naive(sources, targets, clip):
    """The definition, with loops: -s_iil + log(e^{s_iil} + sum over j != i and l' of e^{s_ijl'})."""
    B, L, R = targets.shape
    raw = torch.einsum("ir,jlr->ijl", sources, targets) / R**0.5
    score = clip * torch.tanh(raw / clip)
    losses = []
    for i in range(B):
        negatives = score[i, [j for j in range(B) if j != i]].flatten()
        losses += [torch.logsumexp(torch.cat([score[i, i, k : k + 1], negatives]), 0) - score[i, i, k] for k in range(L)]
    return torch.stack(losses).mean(), 0.05 * raw.square().mean()


def pair(B, L, R, scale, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(B, R, dtype=torch.float64, generator=generator) * scale
    targets = torch.randn(B, L, R, dtype=torch.float64, generator=generator) * scale
    return sources.requires_grad_(), targets.requires_grad_()


@settings(deadline=None, max_examples=40)
@given(
    B=st.integers(2, 9),
    L=st.sampled_from([1, 3, 25]),
    R=st.integers(1, 17),
    scale=st.sampled_from([0.1, 1, 4]),
    seed=st.integers(0, 99),
)
def test_term_equals_naive_with_gradients(B, L, R, scale, seed):
    sources, targets = pair(B, L, R, scale, seed)
    ours, theirs = nce(sources, targets), naive(sources, targets, 20.0)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-13)
    gradients = [torch.autograd.grad(sum(value), (sources, targets)) for value in (ours, theirs)]
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-12)


def test_the_original_s_masked_form_is_the_same_function():
    sources, targets = pair(7, 5, 9, 2.0)
    torch.testing.assert_close(masked_nce(sources, targets), naive(sources, targets, 20.0), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("clip", [5.0, 20.0, 35.0])
def test_saturated_scores_stay_exact(clip):
    sources, targets = pair(6, 4, 8, 30.0)
    loss, _ = nce(sources, targets, clip)
    expected, _ = naive(sources, targets, clip)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_tiny_losses_do_not_round_to_zero():
    """Positives at the top of the clip and negatives at the bottom: about 1e-17 a negative, far below float32's epsilon."""
    targets = torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]], dtype=torch.float64) * 30
    sources = targets[:, 0].clone()
    expected, _ = naive(sources, targets, 20.0)
    loss, _ = nce(sources.float(), targets.float())
    assert expected < 1e-15
    assert loss.item() == pytest.approx(torch.exp(torch.tensor(-40.0, dtype=torch.float64)).item(), rel=1e-3)


@pytest.mark.parametrize("clip", [5.0, 20.0, 35.0])
@pytest.mark.parametrize(("B", "L", "R"), [(2, 49, 3), (33, 25, 70), (150, 49, 33), (300, 1, 65), (300, 25, 8)])
@pytest.mark.parametrize("scale", [0.3, 12.0])
def test_sizes_and_clips_with_gradients(B, L, R, clip, scale):
    sources, targets = pair(B, L, R, scale)
    ours, theirs = nce(sources, targets, clip), plain_nce(sources, targets, clip)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    for mine, reference in zip(*(torch.autograd.grad(sum(value), (sources, targets)) for value in (ours, theirs)), strict=True):
        assert (mine - reference).norm() <= 1e-10 * reference.norm()


@pytest.mark.parametrize("clip", [5.0, 35.0])
def test_the_worst_scores_of_the_largest_clip_fit_float32(clip):
    """Negatives at +c and positives at -c: N e^{-u} is the largest that it can be, and neither it nor its gradient overflows."""
    vectors = torch.full((64, 49, 8), 1e3)
    sources, targets = -vectors[:, 0], vectors.clone()
    targets[1::2], sources[1::2] = -targets[1::2], -sources[1::2]  # half the images are each other's hard negatives
    leaves = [sources.requires_grad_(), targets.requires_grad_()]
    loss, _ = nce(*leaves, clip)
    exact, _ = plain_nce(*(t.detach().double() for t in leaves), clip)
    assert loss.dtype is torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    assert loss > 2 * clip
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_float32_for_narrow_inputs(dtype):
    """Compared on the rounded inputs, so that what is left is the arithmetic's own error."""
    sources, targets = (t.detach().to(dtype) for t in pair(64, 25, 96, 1.5))
    loss, regulariser = nce(sources, targets)
    expected = plain_nce(sources.double(), targets.double())
    assert loss.dtype is torch.float32
    torch.testing.assert_close(torch.stack([loss, regulariser]).double(), torch.stack(expected), rtol=2e-6, atol=0)


def test_bfloat16_products_leave_float32_ones_alone():
    """Within the context oneDNN may round float32 matrices to bfloat16; outside they are exact again."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    nce(*(t.bfloat16() for t in pair(4, 2, 8, 1.0)))
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize("B", [3, 4, 5, 17])
def test_tiles_join_without_a_seam(B, monkeypatch):
    monkeypatch.setattr(nce_torch, "images_a_tile", lambda *_: 4)
    sources, targets = pair(B, 2, 7, 2.0)
    ours, theirs = nce(sources, targets), naive(sources, targets, 20.0)
    gradients = [torch.autograd.grad(sum(value), (sources, targets)) for value in (ours, theirs)]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.01), (torch.float16, 2e-3), (torch.float32, 1e-6)])
def test_gradients_are_as_good_as_rounding_allows(dtype, bound):
    sources, targets = pair(24, 5, 64, 1.0)
    exact = torch.autograd.grad(sum(naive(sources, targets, 20.0)), (sources, targets))
    narrow = [t.detach().to(dtype).requires_grad_() for t in (sources, targets)]
    rounded = torch.autograd.grad(sum(nce(*narrow)), narrow)
    for mine, reference in zip(rounded, exact, strict=True):
        assert (mine.double() - reference).norm() / reference.norm() < bound


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operation has made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.elements = max(
            [self.elements, *(each.numel() for each in pytree.tree_leaves(out) if isinstance(each, torch.Tensor))]
        )
        return out


def test_no_tensor_of_all_scores_is_ever_made():
    """Forward and backward: the largest is a tile of scores, or the targets."""
    B, L, R = 300, 49, 8
    leaves = [t.detach().float().requires_grad_() for t in pair(B, L, R, 1.0)]
    with Largest() as seen:
        torch.autograd.grad(sum(nce(*leaves)), leaves)
    assert B * L * R <= seen.elements <= nce_torch.SCORES_A_TILE < B * B * L / 8


def test_memory_does_not_hold_the_scores():
    """What is kept for the backward pass: the inputs, and nothing of B x B x L numbers."""
    sources, targets = pair(64, 25, 4, 1.0)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        nce(sources, targets)
    assert max(kept) <= 64 * 25 * 4


def test_gradcheck():
    sources, targets = pair(4, 3, 5, 1.0)
    assert torch.autograd.gradcheck(nce, (sources, targets))


def test_partition_takes_several_sources_of_one_image():
    """Owners say whose locations are left out of a source's negatives."""
    sources, targets = pair(3, 2, 4, 1.0)
    owner = torch.tensor([2, 0, 0])
    parts = nce_sums(sources, owner, targets, 20.0)
    raw = torch.einsum("mr,jlr->mjl", sources, targets) / 2
    shifted = 20 * torch.tanh(raw / 20) - 20
    for m, image in enumerate(owner):
        others = [j for j in range(3) if j != image]
        torch.testing.assert_close(parts.negatives[m], shifted[m, others].exp().sum())
        torch.testing.assert_close(parts.positives[m], shifted[m, image])
    torch.testing.assert_close(parts.sum_of_squares, raw.square().sum())


@pytest.mark.parametrize("clip", [0.0, -1.0, 36.0])
def test_clips_that_would_overflow_are_refused(clip):
    with pytest.raises(ValueError, match="clip"):
        nce(*pair(2, 1, 4, 1.0), clip)


def test_one_image_has_no_negatives():
    with pytest.raises(ValueError, match="at least 2"):
        nce(*pair(1, 3, 4, 1.0))


def test_whole_objective_is_three_terms_both_ways():
    B, R = 3, 6
    make = torch.Generator().manual_seed(1)
    views = [Features(*(torch.randn(B, R, s, s, dtype=torch.float64, generator=make) for s in (1, 5, 7))) for _ in range(2)]
    locations = torch.tensor([[3, 24, 0], [7, 7, 12]])
    terms = {"loss_1t5": [], "loss_1t7": [], "loss_5t5": []}
    regularisers = []
    for a, b, where in ((views[0], views[1], locations[0]), (views[1], views[0], locations[1])):
        rows5, rows7 = (m.flatten(2).transpose(1, 2) for m in (b.r5, b.r7))
        one = a.r5.flatten(2)[torch.arange(B), :, where]
        for name, source, target in (
            ("loss_1t5", a.r1[:, :, 0, 0], rows5),
            ("loss_1t7", a.r1[:, :, 0, 0], rows7),
            ("loss_5t5", one, rows5),
        ):
            loss, regulariser = naive(source, target, 20.0)
            terms[name].append(loss)
            regularisers.append(regulariser)
    result = multiscale_nce(*views, locations)
    for name, losses in terms.items():
        torch.testing.assert_close(getattr(result, name), sum(losses) / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.regulariser, sum(regularisers) / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.total, sum(result))


def test_scores_are_float32_under_autocast():
    sources, targets = (t.detach().bfloat16() for t in pair(8, 25, 64, 1.0))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = nce(sources, targets)
    expected, _ = naive(sources.double(), targets.double(), 20.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_unknown_implementations_are_refused():
    with pytest.raises(ValueError, match="give one of auto, torch, triton"):
        nce(*pair(2, 1, 4, 1.0), implementation="cuda")
