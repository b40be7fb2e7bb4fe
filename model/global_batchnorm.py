"""Batch normalisation with the statistics of all ranks' batches.

Statistics of one rank alone would tell a source which rank a target came from, and the objective would be solved without looking
at the image. torch's SyncBatchNorm does this on GPUs; its kernels refuse CPU tensors. Here torch's own kernels normalise, with
statistics that went through one gather, and their backward pass gets the two terms that other ranks add through one sum.

Shape letters: n values a channel of this rank, W ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from amdim.model import activation_checkpoint
from amdim.model.collectives import world_size


class GlobalBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d over the whole batch of all ranks: (B, C, ...), every rank with as many values a channel.

    It is nn.BatchNorm2d itself on one rank and in evaluation. Vectors (B, C) are welcome.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch normalisation of {tuple(input.shape)}: expected (B, C, ...)")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or (world_size() == 1 and not activation_checkpoint.again()):
            return super().forward(input)
        self._check_input_dim(input)
        if world_size() == 1:  # the running statistics had this batch already: copies of them take it
            assert self.running_mean is not None
            assert self.running_var is not None
            own = self.running_mean.clone(), self.running_var.clone()
            return F.batch_norm(input, *own, self.weight, self.bias, training=True, eps=self.eps)
        y, mean, var = _Normalise.apply(input, self.weight, self.bias, self.eps)
        if not activation_checkpoint.again():
            self._update(mean, var, world_size() * input.numel() // input.shape[1])
        return y

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor, values: int) -> None:
        """Running statistics from those of one batch; the variance of the population, as nn.BatchNorm2d keeps it."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_((var * (values / (values - 1))).to(self.running_var.dtype), self.momentum)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = activation_checkpoint.once(lambda: global_statistics(x))
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, eps=eps), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        inverse = (var + ctx.eps).rsqrt()
        # As if the statistics were constants: dx = dy weight / std, dweight = sum(dy x^), dbias = sum(dy), with x^ normalised.
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, var, mean, inverse, False, ctx.eps, [True, True, True]
        )
        total = torch.stack([dweight, dbias])
        dist.all_reduce(total)
        # They are not: every value moves the mean and the variance a little.
        slope, offset = total * (weight * inverse / (world_size() * x.numel() // x.shape[1]))
        shape = (1, -1) + (1,) * (x.dim() - 2)
        moved = torch.addcmul((offset - slope * inverse * mean).view(shape), x, (slope * inverse).view(shape))
        return (dx - moved).to(x.dtype), dweight, dbias, None


def global_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over all ranks, (C,) each and at least float32.

    Means and variances of equal parts are put together exactly as they are: sums of squares would lose the digits of a variance
    that is small beside its mean.
    """
    own = torch.stack(local_statistics(x))
    parts = own.new_empty(world_size() * 2, x.shape[1])
    dist.all_gather_single(parts, own)
    means, variances = parts.view(world_size(), 2, -1).unbind(1)
    var_of_means, mean = torch.var_mean(means, 0, correction=0)
    return mean, variances.mean(0) + var_of_means


def local_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of this rank's batch."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if x.device.type == "cpu":  # the kernel that serves one rank, in a tenth of the time that var_mean takes there
        mean, var = torch.ops.aten.batch_norm_update_stats(wide, None, None, 0.0)
    else:
        var, mean = torch.var_mean(wide, [d for d in range(x.dim()) if d != 1], correction=0)
    return mean, var
