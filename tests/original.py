"""The encoder and classifiers of amdim-public, written anew from what they compute, with its names, so that their state dict has
its keys. Nothing of ``model/`` is used: what the two agree on, each says for itself.
"""

from __future__ import annotations

import os
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    """Batch normalisation that has its weights always and uses them only if ``on``."""

    def __init__(self, channels, on):
        super().__init__()
        self.bn, self.on = nn.BatchNorm2d(channels), on

    def forward(self, x):
        return self.bn(x) if self.on else x


class Stem(nn.Module):
    def __init__(self, inp, out, kernel, stride=1, margin=0):
        super().__init__()
        self.margin = margin
        self.conv = nn.Conv2d(inp, out, kernel, stride)

    def forward(self, x):
        padded = F.pad(x, [self.margin] * 4, mode="reflect") if self.margin else x
        return self.conv(padded).clamp(min=0)


class Residual(nn.Module):
    def __init__(self, inp, out, kernel, stride, use_bn):
        super().__init__()
        self.conv1 = nn.Conv2d(inp, out, kernel, stride, bias=False)
        self.conv2 = nn.Conv2d(out, out, 1, bias=False)
        self.bn1 = Norm(out, use_bn)
        self.window, self.new = (kernel, stride), out - inp

    def forward(self, x):
        pooled = F.avg_pool2d(x, *self.window)
        zeros = pooled.new_zeros(len(x), self.new, *pooled.shape[2:])
        return self.conv2(self.bn1(self.conv1(x)).clamp(min=0)) + torch.cat([pooled, zeros], 1)


class Block(nn.Module):
    def __init__(self, inp, out, kernel, stride, depth, use_bn):
        super().__init__()
        units = [Residual(inp, out, kernel, stride, use_bn)]
        self.layer_list = nn.Sequential(*units, *(Residual(out, out, 1, 1, use_bn) for _ in range(depth - 1)))

    def forward(self, x):
        return self.layer_list(x)


class Embedding(nn.Module):
    def __init__(self, inp, out, use_bn):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inp, out, 1, bias=False), nn.Conv2d(out, out, 1, bias=False)
        self.shortcut = nn.Conv2d(inp, out, 1)
        self.bn_hid, self.bn_out = Norm(out, use_bn), Norm(out, True)

    def forward(self, x):
        return self.bn_out(self.conv2(self.bn_hid(self.conv1(x)).clamp(min=0)) + self.shortcut(x))


class OriginalEncoder(nn.Module):
    def __init__(self, ndf, n_rkhs, n_depth, encoder_size, use_bn):
        super().__init__()
        w, deep = ndf, (n_depth, use_bn)
        if encoder_size == 32:
            layers = [Stem(3, w, 3), Residual(w, w, 1, 1, use_bn), Block(w, 2 * w, 4, 2, *deep), Block(2 * w, 4 * w, 2, 2, *deep)]
            top = 4 * w
        else:
            layers = [Stem(3, w, 5, 2, 2), Stem(w, w, 3)] if encoder_size == 128 else [Stem(3, w, 3)]
            layers += [Block(w, 2 * w, 4, 2, *deep), Block(2 * w, 4 * w, 4, 2, *deep), Block(4 * w, 8 * w, 2, 2, *deep)]
            top = 8 * w
        layers += [Norm(top, use_bn), Block(top, top, 3, 1, *deep), Block(top, top, 3, 1, *deep)]
        layers += [Residual(top, n_rkhs, 3, 1, use_bn), Norm(n_rkhs, True)]
        self.layer_list = nn.ModuleList(layers)
        self.rkhs_block_5, self.rkhs_block_7 = Embedding(top, n_rkhs, use_bn), Embedding(top, n_rkhs, use_bn)

    def forward(self, x):
        maps = {}
        for layer in self.layer_list:
            x = layer(x)
            maps[x.shape[-1]] = x  # the last of each size: after its normalisation
        return maps[1], self.rkhs_block_5(maps[5]), self.rkhs_block_7(maps[7])


class Wrapped(nn.Module):
    """Puts ``module`` into the names, as DataParallel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module


class Classifier(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.block_forward = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, x):
        return self.block_forward(x)


class Evaluator(nn.Module):
    def __init__(self, n_rkhs, n_classes):
        super().__init__()
        hidden = [nn.Dropout(0.2), nn.Linear(n_rkhs, 1024, bias=False), nn.BatchNorm1d(1024), nn.ReLU(), nn.Dropout(0.2)]
        self.block_glb_mlp = Classifier(*hidden, nn.Linear(1024, n_classes))
        self.block_glb_lin = Classifier(nn.Dropout(0.0), nn.Linear(n_rkhs, n_classes))


class Objective(nn.Module):
    """All that the objective has in a state dict: the masks that pick a location of 5 x 5."""

    def __init__(self):
        super().__init__()
        self.masks_r5 = nn.Parameter(torch.eye(25, dtype=torch.uint8).view(25, 1, 5, 5), requires_grad=False)


class Original(nn.Module):
    """The whole model, in evaluation mode, with weights and statistics that leave no path closed."""

    def __init__(self, ndf=4, n_classes=3, n_rkhs=40, tclip=20.0, n_depth=2, encoder_size=32, use_bn=False, seed=0):
        super().__init__()
        self.hyperparams = {"ndf": ndf, "n_classes": n_classes, "n_rkhs": n_rkhs, "tclip": tclip}
        self.hyperparams |= {"n_depth": n_depth, "encoder_size": encoder_size, "use_bn": use_bn}
        torch.manual_seed(seed)
        self.encoder = Wrapped(OriginalEncoder(ndf, n_rkhs, n_depth, encoder_size, use_bn))
        self.g2l_loss = Objective()
        self.evaluator = Evaluator(n_rkhs, n_classes)
        for norm in (each for each in self.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)):
            for tensor, low, high in ((norm.weight, 0.5, 1.5), (norm.bias, -1, 1), (norm.running_mean, -1, 1)):
                nn.init.uniform_(tensor, low, high)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            norm.num_batches_tracked.fill_(1234)
        self.eval()

    def forward(self, x):
        """r1, r5, r7 and the logits of the two classifiers, linear first."""
        features = self.encoder.module(x)
        return *features, self.evaluator.block_glb_lin(features[0]), self.evaluator.block_glb_mlp(features[0])

    def checkpoint(self, step=5000):
        """What the original gives to ``torch.save``."""
        cursor = {"info_epoch": 7, "info_step": step, "classifier_epoch": 0, "classifier_step": 0}
        return {"model": self.state_dict(), "hyperparams": self.hyperparams, "cursor": cursor}


def save(checkpoint, path: os.PathLike[str], legacy: bool = True) -> os.PathLike[str]:
    """``torch.save`` as on a GPU in 2019 (``legacy``) or today: each storage says that it was on cuda:0."""
    with mock.patch("torch.serialization.location_tag", return_value="cuda:0"):
        torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    return path
