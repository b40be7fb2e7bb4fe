"""Maps that are computed again: the same bits, statistics updated once, nothing exchanged twice, fewer bytes kept."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from amdim.model import collectives
from amdim.model.amdim import AMDIM
from amdim.model.encoder import EncoderConfig
from amdim.model.global_batchnorm import _Normalise
from tests.model.ranks import in_ranks

B = 6


def models(size=32, use_bn=True, depth=4):
    """The same weights twice; the second computes again."""
    torch.manual_seed(0)
    amdim = AMDIM(EncoderConfig(size, 4, 32, depth, use_bn), 3)
    for parameter in amdim.parameters():
        nn.init.normal_(parameter, std=0.2)
    other = copy.deepcopy(amdim)
    other.encoder.recompute()
    return amdim.to(memory_format=torch.channels_last), other.to(memory_format=torch.channels_last)


def batch(size, generator):
    x1, x2 = torch.randn(2, B, 3, size, size, generator=generator)
    return x1, x2, torch.arange(B) % 3, torch.randint(0, 25, (2, B), generator=generator)


def train(model, size=32, amp=False, steps=2):
    """Everything that a few steps of plain descent leave behind."""
    generator, losses = torch.Generator().manual_seed(1 + collectives.rank()), []
    torch.manual_seed(7)  # of the probe's dropout
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            out = model(*batch(size, generator))
        model.zero_grad()
        out.total.backward()
        losses.append(out.total.detach())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad, alpha=1e-3)
    module = model.module if isinstance(model, DistributedDataParallel) else model
    return torch.stack(losses), {name: parameter.grad for name, parameter in model.named_parameters()}, module.state_dict()


def same(one, other):
    losses, gradients, state = one
    again, gradients_again, state_again = other
    assert torch.equal(losses, again)
    assert all(torch.equal(a, b) for a, b in zip(gradients.values(), gradients_again.values(), strict=True))
    assert state.keys() == state_again.keys()
    assert all(torch.equal(state[name], state_again[name]) for name in state)
    counted = [tensor for name, tensor in state_again.items() if name.endswith("encoder.to_1.2.num_batches_tracked")]
    assert [int(count) for count in counted] == [4]  # two views, two steps


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("use_bn", [True, False])
@pytest.mark.parametrize("amp", [True, False])
def test_the_same_bits(size, use_bn, amp):
    plain, again = models(size, use_bn, depth=2)
    same(train(plain, size, amp), train(again, size, amp))


def in_one_of_several():
    """In a rank: both models through DDP, and how often each asked the others for statistics."""
    counts, results, exchange = [], [], _Normalise.forward.__globals__["global_statistics"]

    def counted(x):
        counts[-1] += 1
        return exchange(x)

    _Normalise.forward.__globals__["global_statistics"] = counted
    for model in models():
        counts.append(0)
        wrapped = DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
        results.append(train(wrapped))
    return counts, results


def test_the_same_bits_in_two_ranks(tmp_path):
    for counts, (plain, again) in in_ranks(2, in_one_of_several, directory=tmp_path):
        same(plain, again)
        assert counts[0] == counts[1] > 0


def bytes_kept(model):
    """Memory of what autograd keeps between the passes, each storage once; parameters apart."""
    kept, own = {}, {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        features = model.encoder(torch.randn(B, 3, 32, 32))
    assert features.r1.requires_grad
    return sum(kept.values())


def test_less_is_kept():
    plain, again = models(depth=8)
    assert bytes_kept(again) < bytes_kept(plain) / 2


def test_nothing_is_kept_without_gradients():
    _, again = models()
    with torch.no_grad():
        assert not again.eval().encoder(torch.randn(B, 3, 32, 32)).r1.requires_grad
