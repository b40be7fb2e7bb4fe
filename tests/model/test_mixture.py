"""The mixture term against its definition written out pair by pair in float64, on one process and on several."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from amdim.model.amdim import AMDIM
from amdim.model.encoder import EncoderConfig, Features
from amdim.model.mixture import Mixture, log_scores, mixture_both_ways, mixture_loss, mixture_nce, posterior
from amdim.model.multiscale_nce import nce
from amdim.model.streaming_nce import nce_sums


def naive_scores(sources, targets, clip):
    """s(k, i): each component's log-softmax of a location among itself and all locations of all other images."""
    B, K, R = sources.shape
    raw = torch.einsum("ikr,jlr->ikjl", sources, targets) / R**0.5
    score = clip * torch.tanh(raw / clip)
    rows = []
    for i in range(B):
        others = [j for j in range(B) if j != i]
        for k in range(K):
            negatives = score[i, k, others].flatten()
            rows += [s - torch.logsumexp(torch.cat([s[None], negatives]), 0) for s in score[i, k, i]]
    return torch.stack(rows).view(B, K, -1), 0.05 * raw.square().mean()


def naive(sources, targets, clip, a, detach):
    """-mean over i of [sum_k q s + a H(q)] + a log K, with q the posterior, held fixed or not."""
    scores, regulariser = naive_scores(sources, targets, clip)
    q = torch.softmax(scores / a, 1)
    q = q.detach() if detach else q
    entropy = -torch.special.xlogy(q, q).sum(1)
    best = ((q * scores).sum(1) + a * entropy).mean()
    return a * torch.tensor(float(scores.shape[1])).double().log() - best, regulariser


def features(B, K, L, R, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(B, K, R, dtype=torch.float64, generator=generator) * scale
    targets = torch.randn(B, L, R, dtype=torch.float64, generator=generator) * scale
    return sources.requires_grad_(), targets.requires_grad_()


@settings(deadline=None, max_examples=30)
@given(
    B=st.integers(2, 6),
    K=st.integers(1, 5),
    L=st.sampled_from([1, 4, 9]),
    scale=st.sampled_from([0.1, 1, 4]),
    a=st.sampled_from([0.2, 1.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_term_equals_naive_with_gradients(B, K, L, scale, a, seed):
    sources, targets = features(B, K, L, 7, scale, seed)
    ours = mixture_nce(sources, targets, 20.0, a)
    for detach in (True, False):  # the gradient through q is zero: q is where the bracket has its maximum
        theirs = naive(sources, targets, 20.0, a, detach)
        for mine, reference in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(sum(value), (sources, targets), retain_graph=True) for value in (ours, theirs)]
        for mine, reference in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("K", [1, 2, 5])
def test_equal_components_lose_what_one_source_would(K):
    sources, targets = features(5, 1, 9, 7)
    ours, theirs = mixture_nce(sources.expand(-1, K, -1), targets, 20.0), nce(sources[:, 0], targets, 20.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_no_other_posterior_does_better():
    scores, _ = naive_scores(*features(3, 4, 6, 7), 20.0)
    best, uniform = -mixture_loss(scores, 0.7), torch.tensor(4.0).double().log() * 0.7
    for shift in torch.randn(50, *scores.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)):
        q = (torch.log(posterior(scores, 0.7)) + shift).softmax(1)
        value = ((q * scores).sum(1) - 0.7 * torch.special.xlogy(q, q).sum(1)).mean() - uniform
        assert value < best


def test_posterior_of_scores():
    scores = torch.tensor([[[0.0, -9.0], [torch.tensor(3.0).log(), -9.0]]])
    torch.testing.assert_close(posterior(scores, 1.0), torch.tensor([[[0.25, 0.5], [0.75, 0.5]]]))


def test_log_scores_are_those_of_the_definition():
    sources, targets = features(4, 3, 5, 7)
    owner = torch.arange(4).repeat_interleave(3)
    parts = nce_sums(sources.flatten(0, 1), owner, targets, 20.0)
    expected, _ = naive_scores(sources, targets, 20.0)
    torch.testing.assert_close(log_scores(parts.negatives, parts.positives).view(4, 3, 5), expected, rtol=1e-12, atol=1e-12)


def test_both_ways_are_averaged_and_regularisers_halved():
    make = torch.Generator().manual_seed(1)
    views = [Features(*(torch.randn(3, 6, s, s, dtype=torch.float64, generator=make) for s in (1, 5, 7))) for _ in range(2)]
    mixture = Mixture(6, 3).double()
    ways = [
        naive(mixture(a.r1.flatten(1)), b.r7.flatten(2).transpose(1, 2), 20.0, 0.3, True) for a, b in (views, reversed(views))
    ]
    expected = [sum(column) / 2 for column in zip(*ways, strict=True)]
    torch.testing.assert_close(mixture_both_ways(mixture, *views), tuple(expected), rtol=1e-12, atol=1e-12)


def test_features_are_residual_and_components_part():
    """Components start apart and are drawn apart: their own weights get different gradients."""
    torch.manual_seed(0)
    mixture, r1 = Mixture(8, 3), torch.randn(5, 8)
    assert mixture(r1).shape == (5, 3, 8)
    loss, _ = mixture_nce(mixture(r1), torch.randn(5, 4, 8))
    loss.backward()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(*(mixture.out.weight.grad.view(3, 8, 8)[k] for k in (one, other)), rtol=0.1)
    torch.nn.init.zeros_(mixture.out.weight)
    torch.nn.init.zeros_(mixture.out.bias)
    torch.testing.assert_close(mixture(r1), r1[:, None].expand(-1, 3, -1))


def test_scores_are_float32_under_autocast():
    sources, targets = (t.detach() for t in features(8, 3, 25, 64))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = mixture_nce(sources.bfloat16(), targets.bfloat16())
    expected, _ = naive(sources.bfloat16().double(), targets.bfloat16().double(), 20.0, 0.3, True)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def two_views():
    """Outputs of two views of six images, and a mixture over them."""
    make = torch.Generator().manual_seed(1)
    views = [[torch.randn(6, 5, s, s, dtype=torch.float64, generator=make) for s in (1, 5, 7)] for _ in range(2)]
    torch.manual_seed(2)
    return views, Mixture(5, 3).double()


def loss_and_gradients(views, mixture):
    """Loss, regulariser, then gradients: of r1 and r7 of both views, and of the mixture's weights."""
    views = [Features(*(t.clone().requires_grad_() for t in view)) for view in views]
    loss, regulariser = mixture_both_ways(mixture, *views)
    leaves = [t for view in views for t in (view.r1, view.r7)]
    return [loss.detach(), regulariser.detach(), *torch.autograd.grad(loss + regulariser, [*leaves, *mixture.parameters()])]


def work(rank, world, directory):
    """One rank: its slice of the batch through the term; leaves what it found in ``directory``."""
    dist.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=world)
    views, mixture = two_views()
    share = slice(rank * 6 // world, (rank + 1) * 6 // world)
    torch.save(loss_and_gradients([[t[share] for t in view] for view in views], mixture), f"{directory}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_equal_one(world, tmp_path):
    """Losses and gradients averaged over ranks, as DistributedDataParallel takes them."""
    mp.spawn(work, (world, str(tmp_path)), nprocs=world)
    parts = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(world)), strict=True)
    for number, (found, expected) in enumerate(zip(parts, loss_and_gradients(*two_views()), strict=True)):
        of_images = number in (2, 3, 4, 5)
        joined = torch.cat(found) / world if of_images else sum(found) / world
        torch.testing.assert_close(joined, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("mode", ["join", "replace"])
def test_the_term_joins_the_total_or_replaces_another(mode):
    torch.manual_seed(0)
    model = AMDIM(EncoderConfig(32, 4, 16, 1), 3, mixture=2, mixture_mode=mode)
    views = torch.randn(2, 4, 3, 32, 32)
    rest = torch.tensor([0, 1, 2, -1]), torch.zeros(2, 4, dtype=torch.int64)
    losses = model(*views, *rest)
    terms = losses.objective._asdict()
    if mode == "replace":
        del terms["loss_1t7"]
    model.train()
    with torch.no_grad():
        encoded = [model.encoder(view) for view in views]
        term, regulariser = mixture_both_ways(model.mixture, *encoded)
        plain = AMDIM(EncoderConfig(32, 4, 16, 1), 3)
        plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("mixture.")})
        alone = plain(*views, *rest).objective.regulariser
    torch.testing.assert_close(losses.mixture, term)
    torch.testing.assert_close(losses.objective.regulariser, alone + regulariser)
    torch.testing.assert_close(losses.total, sum(terms.values()) + term + losses.probes)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="mode"):
        AMDIM(EncoderConfig(32, 4, 16, 1), 3, mixture=2, mixture_mode="instead")
    with pytest.raises(ValueError, match="at least 1"):
        Mixture(8, 0)
    with pytest.raises(ValueError, match="at least 2"):
        mixture_nce(*features(1, 2, 3, 4))
