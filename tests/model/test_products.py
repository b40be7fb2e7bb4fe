"""Units by matrix products against the original's arrangement and against torch's own gradients."""

from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from amdim.model import conv_matmul
from amdim.model.encoder import Encoder, EncoderConfig, ResidualUnit
from bench.original import rearrange

SHAPES = [(1, 1, 4), (2, 2, 6), (2, 2, 7), (3, 1, 3), (3, 1, 7), (4, 2, 8), (4, 2, 9), (3, 3, 7)]  # kernel, stride, side


def randomised(module):
    for parameter in module.parameters():  # some weights start at zero, which would hide their paths
        torch.nn.init.normal_(parameter, 0, 0.3)
    return module


def twins(make):
    """The fast module and the original's arrangement of the same weights."""
    torch.manual_seed(0)
    fast = randomised(make())
    original = make()
    original.load_state_dict(fast.state_dict())
    rearrange(original)
    return fast, original


def results(module, x):
    """Outputs, the input's gradient, and the weights', of the same weighted sum of the outputs."""
    x = x.clone().requires_grad_()
    outputs = module(x)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    generator = torch.Generator().manual_seed(1)
    total = sum((y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum() for y in outputs)
    return [*outputs, *torch.autograd.grad(total, [x, *module.parameters()])]


def images(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape, generator=generator, dtype=dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("served", [True, False], ids=["products", "plain"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("use_bn", [False, True])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_encoder_is_the_originals(monkeypatch, size, use_bn, training, served):
    """By matrix products, as on a CPU, and by the plain operations that GPUs get."""
    monkeypatch.setattr(conv_matmul, "serve", lambda _: served)
    fast, original = twins(lambda: Encoder(EncoderConfig(size, 3, 30, 2, use_bn)).double().train(training))
    x = images(4, 3, size, size)
    found, expected = results(fast, x), results(original, x)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12 * max(1, theirs.abs().max().item()))
    for mine, theirs in zip(fast.buffers(), original.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "side"), SHAPES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_unit_is_the_originals_whatever_its_windows_and_layout(kernel, stride, side, layout):
    for out in (3, 5):
        fast, original = twins(lambda out=out: ResidualUnit(3, out, kernel, stride, False).double().to(memory_format=layout))
        x = images(2, 3, side, side).contiguous(memory_format=layout)
        for mine, theirs in zip(results(fast, x), results(original, x), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "side"), SHAPES)
def test_gradients_of_opening_are_those_of_differences(kernel, stride, side):
    x, weight = images(2, 2, side, side).requires_grad_(), images(3, 2, kernel, kernel).requires_grad_()
    for relu in (False, True):
        assert torch.autograd.gradcheck(lambda x, w, relu=relu: conv_matmul.open_unit(x, w, stride, relu), (x, weight))


@pytest.mark.parametrize("channels", [2, 3])
def test_gradients_of_closing_are_those_of_differences(channels):
    inputs = [images(2, 3, 4, 4), images(3, 3, 1, 1), images(2, channels, 4, 4)]
    assert torch.autograd.gradcheck(conv_matmul.close_unit, [x.requires_grad_() for x in inputs])


@pytest.mark.parametrize("served", [True, False], ids=["products", "plain"])
@pytest.mark.parametrize("use_bn", [False, True])
def test_channels_last_stays_channels_last(monkeypatch, use_bn, served):
    monkeypatch.setattr(conv_matmul, "serve", lambda _: served)
    encoder = Encoder(EncoderConfig(32, 4, 40, 2, use_bn)).to(memory_format=torch.channels_last)
    layouts = []
    for module in encoder.modules():
        if isinstance(module, ResidualUnit):
            module.register_forward_hook(lambda _, x, y: layouts.append((x[0], y)))
    features = encoder(images(2, 3, 32, 32, dtype=torch.float32))
    maps = [*features, *(t for pair in layouts for t in pair)]
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in maps)


def test_gradients_lie_as_their_weights_do():
    """Otherwise each would be copied once more before the optimizer's fused kernel takes it."""
    encoder = randomised(Encoder(EncoderConfig(32, 4, 40, 2))).to(memory_format=torch.channels_last)
    sum(y.square().sum() for y in encoder(images(3, 3, 32, 32, dtype=torch.float32))).backward()
    assert all(p.grad.stride() == p.stride() for p in encoder.parameters())


def test_under_autocast_maps_are_bfloat16_and_gradients_float32():
    """Gradients of weights in float32 are closer to the truth than plain autocast's, which pass through bfloat16."""
    torch.manual_seed(0)
    unit = randomised(ResidualUnit(8, 16, 2, 2, False))
    x = images(4, 8, 14, 14, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = unit(x)
    y.float().square().sum().backward()
    assert y.dtype is torch.bfloat16
    exact = ResidualUnit(8, 16, 2, 2, False).double()
    exact.load_state_dict(unit.state_dict())
    rearrange(exact)
    expected = exact(x.double())
    expected.square().sum().backward()
    torch.testing.assert_close(y.double(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())
    for mine, theirs in zip(unit.parameters(), exact.parameters(), strict=True):
        assert mine.grad.dtype is torch.float32
        assert (mine.grad - theirs.grad).norm() < 0.02 * theirs.grad.norm()


def test_nothing_is_served_that_the_compiler_or_a_gpu_takes():
    assert conv_matmul.serve(torch.ones(1))
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        assert not conv_matmul.serve(torch.ones(1))
    assert not conv_matmul.serve(torch.ones(1, device="meta"))


@pytest.mark.parametrize("use_bn", [False, True])
def test_plain_operations_are_one_graph_for_the_compiler(use_bn):
    """Also in place: the names of weights stay what they are."""
    torch._dynamo.reset()
    encoder = Encoder(EncoderConfig(32, 4, 40, 1, use_bn))
    names, x = list(encoder.state_dict()), images(4, 3, 32, 32, dtype=torch.float32)
    with mock.patch.object(conv_matmul, "serve", return_value=False):
        expected = encoder(x)
    encoder.compile(backend="aot_eager", fullgraph=True)
    found = encoder(x)
    assert list(encoder.state_dict()) == names
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_products_run_on_fake_tensors():
    with FakeTensorMode():
        encoder = Encoder(EncoderConfig(32, 4, 40, 2))
        features = encoder(torch.randn(2, 3, 32, 32))
        sum(y.sum() for y in features).backward()
        assert features.r7.shape == (2, 40, 7, 7)
        assert all(p.grad.shape == p.shape for p in encoder.parameters())


def test_the_plain_unit_is_the_originals_too():
    """What runs on GPUs."""
    fast, original = twins(lambda: ResidualUnit(3, 5, 4, 2, True).double())
    x = images(2, 3, 8, 8)
    with mock.patch.object(conv_matmul, "serve", return_value=False):
        found = results(fast, x)
    for mine, theirs in zip(found, results(original, x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
