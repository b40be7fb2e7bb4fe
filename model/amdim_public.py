"""Reads the checkpoints of github.com/Philip-Bachman/amdim-public, as its ``Checkpointer`` writes them.

Such a file is a ``torch.save`` of ``{"model": state dict, "hyperparams": …, "cursor": …}``. Its modules are ours under other
names, so that reading is renaming. Batch normalisation is in the file wherever the original might use it; with ``use_bn`` off,
what stands inside the trunk, units and heads was never used and is left out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from amdim.model.encoder import Encoder, EncoderConfig, ResidualUnit
from amdim.model.probes import LinearProbe, MLPProbe
from amdim.model.torch_file import read

Kind = tuple[Callable[[Any], bool], str]
MOST = 100_000  # of anything that is counted; more is damage, and would take the memory of shapes alone
NAMED = 3  # how many keys an error names before it only counts them

# What each hyperparameter must be.
COUNT: Kind = (lambda value: type(value) is int and 0 < value <= MOST, f"a whole number from 1 to {MOST:,}")
NUMBER: Kind = (lambda value: type(value) in (int, float) and 0 < value < math.inf, "a positive number")
SWITCH: Kind = (lambda value: type(value) in (bool, int) and value in (0, 1), "true or false")
SIZES = dict.fromkeys(("ndf", "n_classes", "n_rkhs", "n_depth", "encoder_size"), COUNT)
HYPERPARAMS = SIZES | {"tclip": NUMBER, "use_bn": SWITCH}

# Paths of modules with weights: ours, and the original's.
UNIT = {"conv1": "conv1", "conv2": "conv2", "bn": "bn1.bn"}
HEAD = {"conv1": "conv1", "conv2": "conv2", "shortcut": "shortcut", "bn_hidden": "bn_hid.bn", "bn_out": "bn_out.bn"}
MLP = "evaluator.block_glb_mlp.block_forward"
PROBES = {"linear": "evaluator.block_glb_lin.block_forward.2", "mlp.1": f"{MLP}.2", "mlp.2": f"{MLP}.3", "mlp.5": f"{MLP}.6"}
CONSTANTS = {"g2l_loss.masks_r5"}


class Unreadable(ValueError):
    """The file is no whole checkpoint of amdim-public; the text is a sentence that names it and says why."""


class Imported(NamedTuple):
    """What a file holds, in evaluation mode, float32, on the CPU.

    Args:
        encoder, linear, mlp: the encoder and the classifiers that were trained beside it on r1.
        clip: c of the objective's soft clip.
        epoch, step: epochs and updates of self-supervised training; 0 where the file does not say.
    """

    encoder: Encoder
    linear: LinearProbe
    mlp: MLPProbe
    clip: float
    epoch: int
    step: int

    @property
    def classes(self) -> int:
        return self.linear.out_features

    def modules(self) -> nn.ModuleDict:
        """All three, under the names that they have in AMDIM."""
        return nn.ModuleDict({"encoder": self.encoder, "linear": self.linear, "mlp": self.mlp})


def load(path: str | os.PathLike[str]) -> Imported:
    """Reads a checkpoint of the original.

    Raises:
        Unreadable: it is something else, truncated or damaged, calls for code, or has missing, extra or misshapen weights.
        OSError: it cannot be opened.
    """
    try:
        return build(read(Path(path)))
    except ValueError as error:
        why = "".join(each if each.isprintable() else "?" for each in str(error))  # a file's own words reach no terminal raw
        raise Unreadable(f"{os.fspath(path)}: {why}") from error


def build(saved: Any) -> Imported:
    """Our modules with the weights of a file; a ValueError says what does not fit."""
    if not isinstance(saved, dict) or not isinstance(saved.get("model"), dict):
        raise ValueError("was written by torch.save, but is no checkpoint of amdim-public: it holds no 'model'")
    hyper = hyperparams(saved)
    config = EncoderConfig(hyper["encoder_size"], hyper["ndf"], hyper["n_rkhs"], hyper["n_depth"], bool(hyper["use_bn"]))
    with torch.device("meta"):  # shapes alone: no second copy of weights, and none drawn at random
        encoder = Encoder(config)
        linear, mlp = LinearProbe(config.embedding, hyper["n_classes"]), MLPProbe(config.embedding, hyper["n_classes"])
    found = Imported(encoder, linear, mlp, float(hyper["tclip"]), *cursor(saved))
    modules = found.modules().eval()
    modules.load_state_dict(renamed(modules, encoder_paths(encoder) | PROBES, tensors(saved["model"])), assign=True)
    return found


def hyperparams(saved: dict[str, Any]) -> dict[str, Any]:
    found = saved.get("hyperparams")
    if not isinstance(found, dict):
        raise ValueError("holds no 'hyperparams', without which its weights have no shape; early versions did not store them")
    if missing := [name for name in HYPERPARAMS if name not in found]:
        raise ValueError(f"holds hyperparams that lack {', '.join(missing)}")
    for name, (fits, kind) in HYPERPARAMS.items():
        if not fits(found[name]):
            raise ValueError(f"holds damaged hyperparams: {name} is {found[name]!r:.40}, not {kind}")
    return found


def cursor(saved: dict[str, Any]) -> tuple[int, int]:
    """Epochs and updates of self-supervised training."""
    found = saved.get("cursor")
    counts = (found.get(name) if isinstance(found, dict) else None for name in ("info_epoch", "info_step"))
    epoch, step = (count if type(count) is int and count >= 0 else 0 for count in counts)
    return epoch, step


def tensors(model: dict[Any, Any]) -> dict[str, Tensor]:
    """The state dict without DataParallel's ``module``, wherever it wrapped."""
    for name, tensor in model.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or not plain(tensor):
            raise ValueError(f"holds a damaged model: {name!r:.80} is no tensor of real numbers")
    found: dict[str, Tensor] = {}
    for name, tensor in model.items():
        path = ".".join(part for part in name.split(".") if part != "module")
        if path in found:
            raise ValueError(f"holds a damaged model: {path:.80} is there twice, with and without DataParallel's 'module'")
        found[path] = tensor
    return found


def plain(tensor: Tensor) -> bool:
    """Whether it is as the original's are: values in memory, one for each index, and no complex or quantised ones."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized and not tensor.is_complex()


def renamed(modules: nn.ModuleDict, paths: dict[str, str], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file's weights under our names and in our types; every one that ``modules`` have, and no other."""
    own = modules.state_dict()
    theirs = {name: f"{paths[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in own}
    idle = {path for name, path in paths.items() if isinstance(modules.get_submodule(name), nn.Identity)}
    known = CONSTANTS | {*theirs.values()}
    extra = [name for name in found if name not in known and name.rpartition(".")[0] not in idle]
    check_names([name for name in theirs.values() if name not in found], extra)
    for name, tensor in own.items():
        if found[theirs[name]].shape != tensor.shape:
            shapes = f"{tuple(found[theirs[name]].shape)}, and {tuple(tensor.shape)} by its hyperparams"
            raise ValueError(f"does not fit together: {theirs[name]} has shape {shapes}")
    return {name: found[theirs[name]].to(tensor.dtype).contiguous() for name, tensor in own.items()}


def check_names(missing: list[str], extra: list[str]) -> None:
    faults = [f"lacks {listed(missing)}"] if missing else []
    faults += [f"has {listed(extra)} too many"] if extra else []
    if faults:
        raise ValueError(f"is not what its hyperparams describe: it {' and '.join(faults)}")


def listed(names: list[str]) -> str:
    """The first few names, and how many there are."""
    some = ", ".join(f"{name:.100}" for name in names[:NAMED])
    return f"{len(names):,} weight{'s' * (len(names) > 1)} ({some}{', …' * (len(names) > NAMED)})"


def encoder_paths(encoder: Encoder) -> dict[str, str]:
    """For each module of ours that may hold weights, its place in the original, whose layers are one list."""
    to_7, to_1 = ([f"{part}.{n}" for n in range(len(getattr(encoder, part)))] for part in ("to_7", "to_1"))
    paths = {}
    for n, layer in enumerate([*to_7, "to_5", *to_1]):
        for own, theirs in layer_paths(encoder.get_submodule(layer)):
            paths[f"encoder.{layer}{own}"] = f"encoder.layer_list.{n}.{theirs}"
    for side in (5, 7):
        paths |= {f"encoder.head_{side}.{own}": f"encoder.rkhs_block_{side}.{theirs}" for own, theirs in HEAD.items()}
    return paths


def layer_paths(layer: nn.Module) -> Iterable[tuple[str, str]]:
    """Pairs of paths below a layer: a unit, a stem, a block of units, or the trunk's own normalisation."""
    if isinstance(layer, ResidualUnit):
        return [(f".{own}", theirs) for own, theirs in UNIT.items()]
    if not isinstance(layer, nn.Sequential):
        return [("", "bn")]
    if isinstance(layer[0], nn.Conv2d):
        return [(".0", "conv")]
    return [(f".{m}{own}", f"layer_list.{m}.{theirs}") for m, unit in enumerate(layer) for own, theirs in layer_paths(unit)]
