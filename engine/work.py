"""How much a step computes, and how much of the device's peak that is."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.encoder import Encoder, EncoderConfig

# Dense products of 16-bit numbers with 32-bit sums, TFLOP/s: NVIDIA's data sheets. The first name that fits counts.
PEAKS = (
    ("B200", 2250.0),
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("A10", 125.0),
    ("V100", 125.0),
    ("T4", 65.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
)
PASSES = 3  # forward, gradients of maps, gradients of weights


def operations(config: EncoderConfig) -> float:
    """Multiplications and additions of the encoder's products for one image of a step: two views, forward and backward.

    The objective's are not in it: they grow with the batch, and are few beside these.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Encoder(config).eval()(torch.empty(1, 3, config.size, config.size))
    return 2.0 * PASSES * counter.get_total_flops()


def peak(device: torch.device, half: bool) -> float | None:
    """Operations a second of one GPU by its data sheet; None where it is not known, or the encoder computes in float32."""
    if device.type != "cuda" or not half:
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * tera for part, tera in PEAKS if part in name), None)


def rates(images_per_s: float, an_image: float, ranks: int, peak: float | None) -> dict[str, Any]:
    """For the log: images a second of one rank, operations a second of all, and their share of the peak or None."""
    done = images_per_s * an_image
    return {
        "images_per_s_a_rank": images_per_s / ranks,
        "gflop_per_s": done / 1e9,
        "mfu": done / (ranks * peak) if peak else None,
    }
