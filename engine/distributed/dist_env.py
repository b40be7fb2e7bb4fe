"""This process among its peers: the ranks that torchrun or SLURM gave it, or those that it is to start itself."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple

import torch

from amdim.engine.distributed import slurm
from amdim.errors import UsageError


class DistEnv(NamedTuple):
    """This process among the ranks that train together, and its device.

    ``local`` is its number on this machine, which has ``here`` ranks. Where not ``started``, the other ranks do not exist yet:
    this process is none of them and starts them (``engine.distributed.launcher``).
    """

    rank: int
    world: int
    device: torch.device
    local: int = 0
    here: int = 1
    started: bool = True

    @property
    def threads(self) -> int:
        """Cores for this rank: what SLURM gives each task, or those of this process, shared evenly by the machine's ranks."""
        cores = len(os.sched_getaffinity(0))
        by_slurm = (found := given()) and found.launcher == "SLURM"  # torchrun below it shares out a task's cores
        own = slurm.whole("SLURM_CPUS_PER_TASK", 0) if by_slurm else 0
        return min(cores, own) if own else max(1, cores // self.here)


class Ranks(NamedTuple):
    """What a launcher says to a process: its number and how many there are, in all and on its machine."""

    rank: int
    world: int
    local: int
    here: int
    launcher: str


def find_dist_env(gpus: int | None, procs: int | None = None) -> DistEnv:
    """The place of this process for ``--gpus`` and ``--procs``: None takes a GPU if there is one.

    Raises:
        UsageError: for more GPUs than there are, for processes on the CPU beside GPUs, or for others than the launcher started.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    check(gpus, procs, found)
    ranks = given()
    if ranks is None:
        wanted = min(found, 1) if gpus is None and procs is None else gpus or 0
        world = wanted or procs or 1
        return DistEnv(0, world, torch.device("cuda", 0) if wanted else torch.device("cpu"), 0, world, started=world == 1)
    asked = gpus or procs
    if asked is not None and asked not in (ranks.here, ranks.world):
        option = "--gpus" if gpus else "--procs"
        raise UsageError(f"{option} {asked}: {ranks.launcher} started {ranks.here} ranks on this machine; leave {option} out")
    return DistEnv(ranks.rank, ranks.world, device_of(ranks, gpus, found), ranks.local, ranks.here)


def check(gpus: int | None, procs: int | None, found: int) -> None:
    wanted = gpus or 0
    if wanted < 0:
        raise UsageError(f"--gpus {wanted}: give 0 for the CPU, or a number of GPUs")
    if wanted > found and not (given() and found):  # one GPU may be all that a launcher shows a rank
        go_on = "go on with --gpus 0, which is the CPU" if found == 0 else f"go on with --gpus {found}"
        raise UsageError(f"--gpus {wanted}: this machine has {found or 'no'} CUDA GPU{'s' * (found != 1)}; {go_on}")
    if procs is not None and (wanted or (gpus is None and found)):
        raise UsageError(f"--procs {procs}: is for the CPU; add --gpus 0, or give --gpus {procs} alone")


def device_of(ranks: Ranks, gpus: int | None, found: int) -> torch.device:
    """One GPU a rank; where a launcher shows each rank its own alone, the first."""
    if gpus == 0 or not found:
        return torch.device("cpu")
    if found == 1 < ranks.here and "CUDA_VISIBLE_DEVICES" in os.environ:
        return torch.device("cuda", 0)
    if ranks.here > found:  # the same on every rank
        raise UsageError(
            f"{ranks.launcher} started {ranks.here} ranks on this machine, which has {found} CUDA GPU{'s' * (found != 1)}; "
            f"start {found} a machine, or add --gpus 0 to train on CPUs"
        )
    return torch.device("cuda", ranks.local)


def given() -> Ranks | None:
    """The ranks that torchrun or SLURM started this process among; None where it is alone."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if all(name in os.environ for name in names):
        rank, world, local, here = (slurm.whole(name, 0) for name in names)
        return Ranks(rank, world, local, here, "torchrun")
    found = slurm.ranks()
    return Ranks(*found, "SLURM") if found else None


def let_the_first_speak() -> None:
    """Before an error is printed: a machine's ranks read the same options, and the launcher ends all when the first one fails."""
    with suppress(UsageError):  # which is the error
        ranks = given()
        if ranks and ranks.local:
            time.sleep(5)
