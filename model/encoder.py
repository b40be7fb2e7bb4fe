"""The AMDIM encoder (Bachman, Hjelm, Buchwalter 2019, arXiv 1906.00910; layers as in github.com/Philip-Bachman/amdim-public).

Strided convolutions without zero padding, and units of 1x1 convolutions between them, so that the receptive fields of
neighbouring locations overlap little: with much overlap, predicting one view's locations from the other's would be too easy.

Shape letters: B images, R embedding width, S image side, w encoder width, d units a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amdim.model import conv_matmul
from amdim.model.activation_checkpoint import checkpointed
from amdim.model.global_batchnorm import GlobalBatchNorm

SIZES = (32, 64, 128)


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is made of.

    Args:
        size: side S of the input images: 32, 64 or 128.
        width: channels w of the first layer; the 7x7 map has 4w of them for 32 px and 8w for the others.
        embedding: R, the width of all three outputs; at least the channels of the 7x7 map.
        depth: units d in each block.
        use_bn: batch normalisation inside the units too. The original's default is off: only outputs are normalised.
    """

    size: int = 128
    width: int = 192
    embedding: int = 1536
    depth: int = 8
    use_bn: bool = False

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"encoder size {self.size}: there are encoders for {SIZES} pixels")
        if min(self.width, self.depth) < 1:
            raise ValueError(f"encoder width {self.width}, depth {self.depth}: both are at least 1")
        if self.embedding < self.channels:
            raise ValueError(f"embedding {self.embedding} is less than the {self.channels} channels of the maps it embeds")

    @property
    def channels(self) -> int:
        """Channels of the 7x7 and 5x5 maps."""
        return (4 if self.size == 32 else 8) * self.width


class Features(NamedTuple):
    """The embeddings of B images at three scales: (B, R, 1, 1), (B, R, 5, 5) and (B, R, 7, 7)."""

    r1: Tensor
    r5: Tensor
    r7: Tensor


class ResidualUnit(nn.Module):
    """Residual unit: W2 relu(BN?(W1 x)) + the input, average-pooled to size and padded with zero channels.

    W1 is a k x k convolution, W2 a 1x1 one that starts at zero; no activation follows the sum.
    """

    def __init__(self, inp: int, out: int, kernel: int, stride: int, use_bn: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, out, kernel, stride, bias=False)
        self.bn = GlobalBatchNorm(out) if use_bn else nn.Identity()
        self.conv2 = nn.Conv2d(out, out, 1, bias=False)
        self.kernel, self.stride, self.pad = kernel, stride, out - inp
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        if conv_matmul.serve(x):
            return self.by_products(x)
        hidden = self.conv2(F.relu(self.bn(self.conv1(x)), inplace=True))
        # Pooling over a window of one pixel is the identity: skipped, as most units are 1x1.
        short = F.avg_pool2d(x, self.kernel, self.stride) if self.kernel > 1 else x
        if self.pad:
            short = F.pad(short, (0, 0, 0, 0, 0, self.pad))
        return hidden + short

    def by_products(self, x: Tensor) -> Tensor:
        """The same, where products are faster."""
        plain = isinstance(self.bn, nn.Identity)
        hidden, short = conv_matmul.open_unit(x, self.conv1.weight, self.stride, relu=plain)
        hidden = hidden if plain else F.relu(self.bn(hidden))
        return conv_matmul.close_unit(hidden, self.conv2.weight, short)


class Head(nn.Module):
    """Embeds a map: BN(W2 relu(BN?(W1 x)) + Ws x + b), all 1x1; W2 starts at zero and Ws near the identity."""

    def __init__(self, inp: int, embedding: int, use_bn: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, embedding, 1, bias=False)
        self.bn_hidden = GlobalBatchNorm(embedding) if use_bn else nn.Identity()
        self.conv2 = nn.Conv2d(embedding, embedding, 1, bias=False)
        self.shortcut = nn.Conv2d(inp, embedding, 1)
        self.bn_out = GlobalBatchNorm(embedding)
        nn.init.zeros_(self.conv2.weight)
        nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
        with torch.no_grad():
            self.shortcut.weight[:inp, :, 0, 0].fill_diagonal_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        if conv_matmul.serve(x):
            return self.bn_out(self.by_products(x))
        hidden = F.relu(self.bn_hidden(self.conv1(x)), inplace=True)
        return self.bn_out(self.conv2(hidden) + self.shortcut(x))

    def by_products(self, x: Tensor) -> Tensor:
        """What is normalised last, where products are faster."""
        plain = isinstance(self.bn_hidden, nn.Identity)
        hidden, same = conv_matmul.open_unit(x, self.conv1.weight, relu=plain)
        hidden = hidden if plain else F.relu(self.bn_hidden(hidden))
        short = F.linear(conv_matmul.rows(same), conv_matmul.matrix(self.shortcut.weight), self.shortcut.bias)
        return conv_matmul.close_unit(hidden, self.conv2.weight, conv_matmul.as_map(short, x.shape[2:]))


class CheckpointedSequential(nn.Sequential):
    """Modules one after another; with ``recompute``, their maps are computed again in the backward pass instead of being kept.

    Segments of about the root of their number keep one map each: then the maps that are kept, and those of the one segment that
    is being computed again, are few.
    """

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.recompute or not torch.is_grad_enabled():
            return super().forward(x)
        modules = list(self.flat())
        length = math.isqrt(len(modules))
        for start in range(0, len(modules), length):
            x = checkpointed(nn.Sequential(*modules[start : start + length]), x)
        return x

    def flat(self) -> Iterator[nn.Module]:
        """The modules of this chain and of chains in it."""
        for module in self:
            yield from module.flat() if isinstance(module, CheckpointedSequential) else [module]


def block(inp: int, out: int, kernel: int, stride: int, config: EncoderConfig) -> CheckpointedSequential:
    """One unit that changes the size, then d - 1 units of 1x1 that do not widen the receptive field."""
    shapes = [(inp, kernel, stride)] + [(out, 1, 1)] * (config.depth - 1)
    return CheckpointedSequential(*(ResidualUnit(i, out, k, s, config.use_bn) for i, k, s in shapes))


def stem(inp: int, out: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Convolution with bias, then ReLU; reflection padding."""
    conv = nn.Conv2d(inp, out, kernel, stride, padding, padding_mode="reflect" if padding else "zeros")
    return nn.Sequential(conv, nn.ReLU())


def trunk_to_7(config: EncoderConfig) -> CheckpointedSequential:
    """From the image (B, 3, S, S) to the 7x7 map (B, channels, 7, 7)."""
    w = config.width
    if config.size == 32:
        layers = [stem(3, w, 3), ResidualUnit(w, w, 1, 1, config.use_bn), block(w, 2 * w, 4, 2, config)]
        layers += [block(2 * w, 4 * w, 2, 2, config)]
    else:
        stems = [stem(3, w, 3)] if config.size == 64 else [stem(3, w, 5, 2, 2), stem(w, w, 3)]
        layers = [*stems, block(w, 2 * w, 4, 2, config), block(2 * w, 4 * w, 4, 2, config), block(4 * w, 8 * w, 2, 2, config)]
    return CheckpointedSequential(*layers, GlobalBatchNorm(config.channels) if config.use_bn else nn.Identity())


class Encoder(nn.Module):
    """Maps (B, 3, S, S) to ``Features`` at 1x1, 5x5 and 7x7; r1 is the representation that probes read."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        channels, embedding = config.channels, config.embedding
        self.to_7 = trunk_to_7(config)
        self.to_5 = block(channels, channels, 3, 1, config)
        self.to_1 = CheckpointedSequential(
            block(channels, channels, 3, 1, config),
            ResidualUnit(channels, embedding, 3, 1, config.use_bn),
            GlobalBatchNorm(embedding),
        )
        self.head_5 = Head(channels, embedding, config.use_bn)
        self.head_7 = Head(channels, embedding, config.use_bn)

    def forward(self, x: Tensor) -> Features:
        map_7 = self.to_7(x)
        map_5 = self.to_5(map_7)
        return Features(self.to_1(map_5), self.head_5(map_5), self.head_7(map_7))

    def recompute(self) -> None:
        """From here on keeps few maps for the backward pass and computes the others again: a third more work, less memory."""
        for chain in (self.to_7, self.to_5, self.to_1):
            chain.recompute = True

    def represent(self, x: Tensor) -> Tensor:
        """r1 alone, flat (B, R): what evaluation needs, without the cost of the heads."""
        return self.to_1(self.to_5(self.to_7(x))).flatten(1)
