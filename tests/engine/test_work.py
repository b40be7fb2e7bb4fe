"""Operations of a step against a count by hand, and what is logged of them."""

import pytest
import torch

from amdim.engine.monitor import flops
from amdim.model.encoder import EncoderConfig


def test_operations_by_hand():
    """w 2, R 8, d 1, 32 px: maps of 30, 14, 7, 5, 3 and 1 pixels a side; two operations a multiplication."""
    convolutions = [
        # (pixels, inputs, outputs, kernel)
        (30 * 30, 3, 2, 3),  # the stem
        *[(30 * 30, 2, 2, 1)] * 2,
        *[(14 * 14, 2, 4, 4), (14 * 14, 4, 4, 1)],
        *[(7 * 7, 4, 8, 2), (7 * 7, 8, 8, 1)],
        *[(5 * 5, 8, 8, 3), (5 * 5, 8, 8, 1)],
        *[(3 * 3, 8, 8, 3), (3 * 3, 8, 8, 1)],
        *[(1, 8, 8, 3), (1, 8, 8, 1)],
        *[(pixels, 8, 8, 1) for pixels in (25, 49) for _ in range(3)],  # heads
    ]
    forward = sum(2 * pixels * inputs * outputs * kernel**2 for pixels, inputs, outputs, kernel in convolutions)
    assert flops.operations(EncoderConfig(32, 2, 8, 1)) == 2 * 3 * forward


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", None),  # slower, by how much no source told
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", None),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla T4", 65),
        ("NVIDIA T400", None),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", 80),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce GTX 1", None),
    ],
)
def test_peaks_by_name(monkeypatch, name, tera):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert flops.peak(torch.device("cuda"), True) == (tera and 1e12 * tera)
    assert flops.peak(torch.device("cuda"), False) is None
    assert flops.peak(torch.device("cpu"), True) is None


def test_rates():
    assert flops.rates(100.0, 2e9, 4, 1e12) == {"images_per_s_a_rank": 25.0, "gflop_per_s": 200.0, "mfu": 0.05}
    assert flops.rates(100.0, 2e9, 4, None)["mfu"] is None
