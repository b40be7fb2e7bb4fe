"""Where training begins: at a checkpoint of its run, at another run's weights, or at random ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from amdim.engine import checkpoint, runs
from amdim.engine.distributed import launcher
from amdim.engine.distributed.ddp import from_all, from_first
from amdim.engine.pretrained import load_pretrained
from amdim.engine.runs import Config
from amdim.engine.trainer import Trainer
from amdim.errors import UsageError, warn
from amdim.model.collectives import rank

OF_RANK_0 = {"data", "init", "keep"}  # of a configuration: paths may differ from machine to machine, and rank 0 alone saves


class Begun(NamedTuple):
    """Paths, and no tensors, which would stay in memory beside the model: a run that fitted must fit when it goes on.

    Attributes:
        there: the checkpoints that the run had, newest first.
        saved: the checkpoint that is continued, or None; ``machine`` is what made it.
        source: where weights came from that are no checkpoint of this run, or None.
    """

    there: list[Path]
    saved: Path | None
    machine: dict[str, str]
    source: Path | None


def begin(trainer: Trainer, run: Path, resume: str) -> Begun:
    """Loads what there is to load into ``trainer``.

    Raises:
        UsageError: what was asked for is not there, or of another configuration, or ranks differ in theirs; names the fields.
        UserError: it cannot be read.
    """
    check_alike(trainer)
    there = checkpoint.steps(run / "checkpoints")
    saved = find_start_together(run, trainer.config, trainer.loader.fingerprint()["shards"], resume)
    if saved:
        trainer.load(saved)
        return Begun(there, saved.path, saved.trainer["machine"], None)
    if (init := trainer.config.init) is None:
        return Begun(there, None, {}, None)
    source = load_pretrained(trainer.model, init)
    trainer.config = replace(trainer.config, init=str(source))  # the run that it is of may go on
    return Begun(there, None, {}, source)


def find_start_together(run: Path, config: Config, shards: list[str], resume: str) -> checkpoint.Checkpoint | None:
    """The checkpoint to continue from: rank 0 looks for it, and all ranks read the one that it found."""
    # What this command began goes on, wherever it had begun. Of several machines, one alone may know that ranks were lost.
    if any(from_all(launcher.restarted())) and checkpoint.steps(run / "checkpoints"):
        resume = "auto"
    saved = runs.find_start(run, config, shards, resume) if rank() == 0 else None
    path = from_first(saved and str(saved.path))
    return saved if rank() == 0 or path is None else runs.find_start(run, config, shards, path)


def announce(begun: Begun, trainer: Trainer, console: Console) -> None:
    """Says what is continued, and warns of what will make its numbers differ in their last bits."""
    if begun.source:
        console.print(f"starting from the weights of {begun.source}", markup=False)
    if begun.saved and rank() == 0:
        console.print(f"continuing {begun.saved}", markup=False)
        warn_of_other(begun.machine, trainer)


def check_alike(trainer: Trainer) -> None:
    """That ranks were started alike: each has its own rate, order and format of numbers, and a sum of gradients hides it.

    Raises:
        UsageError: two were not; names what differs.
    """
    own = trainer.config.as_dict()
    own |= own.pop("settings") | trainer.loader.fingerprint() | {"precision": trainer.precision.name}
    first, *others = from_all({name: own[name] for name in own if name not in OF_RANK_0})
    for number, other in enumerate(others, 1):
        if changed := [name for name in first if first[name] != other.get(name)]:
            mend = "give --amp bf16, fp16 or off, as not all of their hardware has the same"
            same = "start all with the same command, code and data"
            raise UsageError(f"ranks 0 and {number} differ in {', '.join(changed)}; {mend if changed == ['precision'] else same}")


def warn_of_other(machine: dict[str, str], trainer: Trainer) -> None:
    """Names what a run's numbers were made by and are not made by here."""
    for name, now in trainer.machine.items():
        if rank() == 0 and machine and (before := machine.get(name)) != now:
            warn(f"{name} was {before} and is {now}: numbers will not be the same to the last bit")
