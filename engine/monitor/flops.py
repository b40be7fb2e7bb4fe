"""How much a step computes, and how much of the device's peak that is."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from amdim.model.encoder import Encoder, EncoderConfig

# Dense products of 16-bit numbers with 32-bit sums, TFLOP/s, by the word in the GPU's name; none for those whose figure was found
# nowhere. Where the source is no data sheet it quotes one, or computes the rate from the clock: within a percent of what is here.
PEAKS = (
    (r"B200", 2250.0),  # glennklockwood.com/garden/processors/B200: on HGX boards, 1,000 W
    (r"H200(?! NVL)", 989.0),  # itkb.uw.cz/2026/06/nvidia-h200-vs-b300-precisions-cores.html: SXM
    (r"H100(?! PCIe| NVL)", 989.0),  # glennklockwood.com/garden/processors/h100: SXM5, 989.4
    (r"A100", 312.0),  # hmc-tech.com/gpu/nvidia-l4-vs-nvidia-a100-40gb: 311.87
    (r"L40S", 362.0),  # its data sheet, at mullet.se/product.html?product_id=355414: 362.05
    (r"L40", 181.0),  # the same: 181.05
    (r"L4", 121.0),  # grokipedia.com/page/NVIDIA_L4_vs_L40S: 242 with sparsity, which doubles it
    (r"V100", 125.0),  # developer.nvidia.com/programming-tensor-cores-cuda-9-0
    (r"T4", 65.0),  # hmc-tech.com/gpu/nvidia-a16-vs-nvidia-t4: 65.13
    (r"RTX 4090(?! D| Laptop)", 165.2),  # waredb.com/processor/nvidia-geforce-rtx-4090: 165.15
    (r"RTX 3090 Ti", 80.0),  # hmc-tech.com/gpu/nvidia-geforce-rtx-4090-d-vs-nvidia-geforce-rtx-3090-ti
    (r"RTX 3090", 71.0),  # twice its 35.6 in float32, as of the 3090 Ti: cuttingedgegamer.com/2022/12
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
    """Operations a second of one GPU by its specification; None where it is not known, or the encoder computes in float32."""
    if device.type != "cuda" or not half:
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * tera for word, tera in PEAKS if re.search(rf"\b{word}\b", name)), None)


def rates(images_per_s: float, an_image: float, ranks: int, peak: float | None) -> dict[str, Any]:
    """For the log: images a second of one rank, operations a second of all, and their share of the peak or None."""
    done = images_per_s * an_image
    return {
        "images_per_s_a_rank": images_per_s / ranks,
        "gflop_per_s": done / 1e9,
        "mfu": done / (ranks * peak) if peak else None,
    }
