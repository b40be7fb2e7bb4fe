"""W ranks with B images each compute what one process computes with all W x B of them, to the last digits of float64."""

from __future__ import annotations

import gc
import weakref
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from amdim.model import collectives
from amdim.model.amdim import AMDIM
from amdim.model.encoder import EncoderConfig
from amdim.model.global_batchnorm import GlobalBatchNorm
from tests.model.ranks import in_ranks

N = 12  # divisible by 2, 3 and 4 ranks


def model(classes=3, use_bn=True, components=0):
    """A small model whose every weight matters: the units' second convolutions no longer start at zero."""
    torch.manual_seed(0)
    amdim = AMDIM(EncoderConfig(32, 4, 24, 1, use_bn), classes, mixture=components).double()
    for parameter in amdim.parameters():
        nn.init.normal_(parameter, std=0.2)
    return amdim


def batch():
    generator = torch.Generator().manual_seed(1)
    x1, x2 = torch.randn(2, N, 3, 32, 32, generator=generator, dtype=torch.float64)
    labels = torch.arange(N) % 4 - 1  # some images have none
    return x1, x2, labels, torch.randint(0, 25, (2, N), generator=generator)


def mine(tensor, axis=0):
    B = N // collectives.world_size()
    return tensor.narrow(axis, collectives.rank() * B, B)


def train_step(components=0):
    """One step as the trainer takes it: loss, gradients after DDP's averaging, running statistics, in training mode."""
    torch.manual_seed(7)  # of the probe's dropout
    amdim = model(components=components)
    wrapped = amdim
    if collectives.world_size() > 1:
        wrapped = DistributedDataParallel(amdim, forward_sync_buffers=False, gradient_as_bucket_view=True)
    x1, x2, labels, locations = batch()
    losses = wrapped(mine(x1), mine(x2), mine(labels), mine(locations, 1))
    losses.total.backward()
    gradients = {name: parameter.grad for name, parameter in amdim.named_parameters()}
    values = torch.stack([losses.total, *losses.objective, losses.mixture, losses.probes]).detach()
    return values, gradients, dict(amdim.named_buffers()), losses.labelled


def relative(mine, reference):
    return ((mine - reference).norm() / reference.norm().clamp(min=1e-30)).item()


@pytest.mark.parametrize(("W", "components"), [(2, 0), (3, 0), (4, 0), (2, 3), (4, 2)])
def test_ranks_train_as_one_process_with_the_whole_batch(W, components, tmp_path):
    """Without mixture features and with so many."""
    values, gradients, buffers, labelled = train_step(components)
    ranks = in_ranks(W, train_step, components, directory=tmp_path)
    torch.testing.assert_close(torch.stack([rank[0] for rank in ranks]).mean(0), values, rtol=1e-12, atol=0)
    assert sum(rank[3] for rank in ranks) == labelled
    # A bias that normalisation takes away again has no gradient but rounding: it is held against the size of the others.
    typical = torch.stack([g.norm() for g in gradients.values()]).median()
    for rank in ranks:
        errors = {name: (rank[1][name] - g).norm() / max(g.norm(), typical) for name, g in gradients.items()}
        assert max(errors.values()) < 1e-12, errors
        torch.testing.assert_close(rank[2], buffers, rtol=1e-12, atol=1e-14)


def batch_of_values(std):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(N, 5, 3, 3, generator=generator, dtype=torch.float64) * std + torch.arange(5.0)[:, None, None]


def normalise(dtype, std):
    generator, whole = torch.Generator().manual_seed(3), batch_of_values(std)
    x = mine(whole).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    layer = GlobalBatchNorm(5).double() if dtype is torch.float64 else GlobalBatchNorm(5)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -2, 0.5, 3, 0.1]))
    y = layer(x)
    (y * mine(torch.randn(N, 5, 3, 3, generator=generator, dtype=torch.float64)).to(y.dtype)).sum().backward()
    return y.detach(), x.grad, layer.weight.grad, layer.bias.grad, dict(layer.named_buffers())


@pytest.mark.parametrize(
    ("dtype", "std", "tolerance"), [(torch.float64, 0.01, 1e-12), (torch.float32, 0.01, 2e-5), (torch.bfloat16, 1.0, 2e-2)]
)
def test_batch_norm_has_the_statistics_of_all_ranks(dtype, std, tolerance, tmp_path):
    """Deviations small beside means, where the type has digits for both."""
    reference = normalise(torch.float64, std)
    ranks = in_ranks(3, normalise, dtype, std, directory=tmp_path)
    y, dx = (torch.cat([rank[i] for rank in ranks]).double() for i in (0, 1))
    assert ranks[0][0].dtype == ranks[0][1].dtype == dtype
    assert ranks[0][0].is_contiguous(memory_format=torch.channels_last)
    assert max(relative(y, reference[0]), relative(dx, reference[1])) < tolerance
    for of_weights in (2, 3):
        assert relative(sum(rank[of_weights].double() for rank in ranks), reference[of_weights]) < tolerance
    if dtype is torch.bfloat16:  # statistics are float32 all the same: of the rounded values, exact to its digits
        whole = batch_of_values(std).to(dtype).double()
        var, mean = torch.var_mean(whole, (0, 2, 3))
        torch.testing.assert_close(ranks[0][4]["running_mean"].double(), 0.1 * mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ranks[0][4]["running_var"].double(), 0.9 + 0.1 * var, rtol=1e-5, atol=0)
    for rank in ranks:
        assert rank[4]["num_batches_tracked"] == 1
        for name in ("running_mean", "running_var"):
            assert relative(rank[4][name].double(), reference[4][name]) < tolerance


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (6, 5)])
def test_batch_norm_of_one_rank_is_torch_s(shape):
    x = torch.randn(shape)
    ours, theirs = GlobalBatchNorm(5), (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(5)
    for training in (True, False):
        ours.train(training), theirs.train(training)
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)


def what_outlives_a_step():
    """Gathered tensors that are left after a step, where no collector of cycles runs."""
    gathered, gather = [], dist.all_gather_single

    def watched(out, *rest, **options):
        gathered.append(weakref.ref(out))
        return gather(out, *rest, **options)

    gc.collect()
    gc.disable()
    with mock.patch.object(dist, "all_gather_single", watched):
        train_step(components=2)
    return sum(ref() is not None for ref in gathered), len(gathered)


def test_nothing_gathered_outlives_its_step(tmp_path):
    for left, gathered in in_ranks(2, what_outlives_a_step, directory=tmp_path):
        assert gathered > 4
        assert not left


def traffic():
    """Bytes that each kind of collective hands over in one step, from this rank's point of view."""
    moved = {}

    def counted(name, payload):
        original = getattr(dist, name)

        def call(*args, **kwargs):
            tensor = args[payload]
            moved[name] = moved.get(name, 0) + tensor.numel() * tensor.element_size()
            return original(*args, **kwargs)

        setattr(dist, name, call)

    counted("all_gather_single", 1)
    counted("reduce_scatter_single", 0)
    counted("all_reduce", 0)
    losses = model(classes=0, use_bn=False).float()(*(mine(t, axis) for t, axis in zip(batch_float(), (0, 0, 0, 1), strict=True)))
    losses.total.backward()
    return moved


def batch_float():
    x1, x2, labels, locations = batch()
    return x1.float(), x2.float(), labels, locations


def test_bytes_on_the_wire_are_sources_sums_and_statistics(tmp_path):
    W, R = 2, 24
    B = N // W
    sources = 2 * 2 * B * R * 4  # two views, r1 and r5
    statistics = 2 * 3 * 2 * R * 4  # two views, three outputs, mean and variance
    sums = 2 * 3 * N * 4  # two directions; r1 and r5 on the 5x5 map, r1 on the 7x7 one
    for moved in in_ranks(W, traffic, directory=tmp_path):
        assert moved["all_gather_single"] == sources + statistics
        assert moved["reduce_scatter_single"] == sources
        assert moved["all_reduce"] == 2 * sums + statistics


def never(_):
    return False


def train_compiled(backend):
    """What ``train.py --gpus`` does on GPUs: the compiled encoder under DistributedDataParallel, with statistics of all ranks."""
    from amdim.engine.distributed.ddp import parallel
    from amdim.model import conv_matmul

    network = model().float()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(weight.numel()))
    if backend:
        network.encoder.compile(backend=backend)
    wrapped, losses = parallel(network, torch.device("cpu")), []
    x1, x2, labels, locations = batch_float()
    with mock.patch.object(conv_matmul, "serve", never):  # plain operations, as on a GPU; a Mock would break the graph
        for _ in range(2):
            torch.manual_seed(7)
            total = wrapped(mine(x1), mine(x2), mine(labels), mine(locations, 1)).total
            network.zero_grad()
            total.backward()
            losses.append(total.item())
    norm = torch.stack([weight.grad.norm() for weight in network.parameters()]).norm().item()
    statistics = torch.stack([value.float().norm() for value in network.buffers()]).norm().item()
    return [*losses, norm, statistics], sum(torch._dynamo.utils.counters["graph_break"].values()) if backend else 0


@pytest.mark.long
def test_a_compiled_encoder_computes_the_same_in_ranks(tmp_path):
    (tmp_path / "eager").mkdir()
    plain = in_ranks(2, train_compiled, None, directory=tmp_path / "eager")
    for (numbers, breaks), (expected, _) in zip(in_ranks(2, train_compiled, "aot_eager", directory=tmp_path), plain, strict=True):
        assert numbers == pytest.approx(expected, rel=1e-5)
        assert breaks == 0
