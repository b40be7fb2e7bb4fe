"""The encoder against the numbers of the specification: shapes, parameters, receptive fields."""

import pytest
import torch

from amdim.model.encoder import Encoder, EncoderConfig


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("use_bn", [False, True])
def test_output_shapes(size, use_bn):
    encoder = Encoder(EncoderConfig(size, 4, 40, 2, use_bn))
    features = encoder(torch.randn(2, 3, size, size))
    assert [tuple(f.shape) for f in features] == [(2, 40, 1, 1), (2, 40, 5, 5), (2, 40, 7, 7)]


@pytest.mark.parametrize(
    ("size", "width", "embedding", "depth", "whole", "trunk"),
    [
        (128, 192, 1536, 8, 208.4, 194.3),
        (128, 256, 2048, 10, 426.1, 400.9),
        (128, 320, 2560, 10, 665.7, 626.4),
        (32, 256, 2048, 10, 127.8, 111.0),
    ],
)
def test_parameter_counts(size, width, embedding, depth, whole, trunk):
    with torch.device("meta"):
        encoder = Encoder(EncoderConfig(size, width, embedding, depth))
    counts = {name: p.numel() for name, p in encoder.named_parameters()}
    assert sum(counts.values()) / 1e6 == pytest.approx(whole, abs=0.05)
    assert sum(n for name, n in counts.items() if not name.startswith("head")) / 1e6 == pytest.approx(trunk, abs=0.05)


@pytest.mark.parametrize(("size", "fields", "stride"), [(32, (8, 16, 32), 4), (64, (16, 32, 64), 8), (128, (35, 67, 131), 16)])
def test_receptive_fields(size, fields, stride):
    """By gradients: how many input pixels a location of r7, r5 and r1 sees, and how far apart neighbours look."""
    encoder = Encoder(EncoderConfig(size, 4, 40, 2)).double().eval()
    for parameter in encoder.parameters():  # every path open and nothing cancelling, so that only geometry counts
        torch.nn.init.constant_(parameter, 0.01)
    image = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)

    def seen(maps, row):
        (gradient,) = torch.autograd.grad(maps[0, :, row, row].sum(), image, retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        return rows.min().item(), rows.max().item() + 1

    r1, r5, r7 = encoder(image)
    for maps, middle, field in ((r7, 3, fields[0]), (r5, 2, fields[1]), (r1, 0, fields[2])):
        low, high = seen(maps, middle)
        assert high - low == min(field, size)
    starts = [seen(r7, row)[0] for row in (2, 3, 4)]
    assert starts[2] - starts[1] == starts[1] - starts[0] == stride


def test_residual_branches_start_at_zero_and_heads_near_the_identity():
    encoder = Encoder(EncoderConfig(32, 4, 40, 2))
    assert all(not p.any() for name, p in encoder.named_parameters() if name.endswith("conv2.weight"))
    shortcut = encoder.head_7.shortcut.weight[:, :, 0, 0]
    assert torch.equal(shortcut[:16].diagonal(), torch.ones(16))
    off = shortcut.clone()
    off[:16].fill_diagonal_(0)
    assert 0 < off.abs().max() <= 0.01


def test_unit_is_pooling_plus_branch():
    """x -> W2 relu(W1 x) + average pool, zero channels appended: against the formula written out."""
    from amdim.model.encoder import ResidualUnit

    unit = ResidualUnit(3, 5, 2, 2, use_bn=False).double()
    torch.nn.init.normal_(unit.conv2.weight)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    branch = torch.einsum("oc,nchw->nohw", unit.conv2.weight[:, :, 0, 0], torch.relu(unit.conv1(x)))
    pooled = x.unflatten(2, (3, 2)).unflatten(4, (3, 2)).mean((3, 5))
    branch[:, :3] += pooled
    torch.testing.assert_close(unit(x), branch)


def test_batch_norm_inside_units_is_optional():
    def norms(use_bn):
        modules = Encoder(EncoderConfig(32, 4, 40, 2, use_bn)).modules()
        return sum(isinstance(m, torch.nn.BatchNorm2d) for m in modules)

    assert norms(False) == 3  # one for each output
    assert norms(True) > 3


def test_represent_is_r1():
    encoder = Encoder(EncoderConfig(32, 4, 40, 2)).eval()
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(encoder.represent(x), encoder(x).r1.flatten(1))


@pytest.mark.parametrize("wrong", [{"size": 48}, {"width": 0}, {"depth": 0}, {"embedding": 8}])
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(ValueError, match=r"encoder|embedding"):
        EncoderConfig(**{"size": 32, "width": 4, "embedding": 40, "depth": 2} | wrong)
