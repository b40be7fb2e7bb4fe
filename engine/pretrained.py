"""The weights that a run starts from, where it does not start at random: ``--init``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from amdim.engine import runs
from amdim.engine.checkpoint import Checkpoint
from amdim.errors import UsageError, UserError, warn
from amdim.model import AMDIM
from amdim.model.collectives import rank
from amdim.model.streaming_nce import MAX_CLIP


def load_pretrained(model: AMDIM, init: str) -> Path:
    """Loads the encoder of a run or checkpoint into ``model``, and of the parts beside it those that fit; warns of the others.

    Returns the checkpoint's path: its tensors, copied by now, are not held on to.

    Raises:
        UsageError: there is no such checkpoint, or its encoder is another one; names the fields.
        UserError: it cannot be read.
    """
    saved = find(init)
    check_encoder(saved, asdict(model.encoder.config))
    own = model.state_dict()
    parts = dict.fromkeys(part_of(name) for name in own)
    anew = [part for part in parts if shapes(own, part) != shapes(saved.weights, part)]
    if "encoder" in anew:
        raise UserError(f"{saved.path}: its weights are not those of the encoder in its config.json; take another checkpoint")
    if anew and rank() == 0:
        warn(f"{saved.path}: has no {' and no '.join(anew)} of the shapes needed here: started anew")
    fitting = {name: tensor for name, tensor in saved.weights.items() if part_of(name) in parts and part_of(name) not in anew}
    model.load_state_dict(own | fitting)
    theirs = saved.config["settings"].get("clip")
    if theirs not in (None, model.clip) and rank() == 0:
        limit = "`clip` in a --config file sets it" if theirs <= MAX_CLIP else f"more than {MAX_CLIP:g} cannot be had here"
        warn(f"{saved.path}: was trained with scores clipped at {theirs:g}, here {model.clip:g}; {limit}")
    return saved.path


def find(init: str) -> Checkpoint:
    """The checkpoint that is meant: itself, or a run's newest."""
    path = runs.run_path(init, "--init")
    if path.is_file():
        raise UsageError(
            f"--init {init}: is a file, not a run; one of amdim-public becomes a run with "
            f"`python eval.py --import-amdim-public {init} --out runs/imported`"
        )
    return runs.read(path, "--init") if path.name.startswith("step-") else runs.newest_checkpoint(path)


def check_encoder(saved: Checkpoint, own: dict[str, Any]) -> None:
    theirs = saved.config["settings"]["encoder"]
    if changed := [f"{name} {theirs.get(name)}, here {value}" for name, value in own.items() if theirs.get(name) != value]:
        other = {name: f"{name} = {str(value).lower()}" for name, value in theirs.items() if own.get(name) != value}
        tables = [f"[views] {other.pop('size')}"] if "size" in other else []
        tables += [f"[encoder] {', '.join(other.values())}"] if other else []
        raise UsageError(
            f"--init {saved.path}: has another encoder ({'; '.join(changed)}); "
            f"take the --preset it was made with, or a --config file with {' and '.join(tables)}"
        )


def part_of(name: str) -> str:
    return name.partition(".")[0]


def shapes(weights: dict[str, Tensor], part: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items() if part_of(name) == part}
