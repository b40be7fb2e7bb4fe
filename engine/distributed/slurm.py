"""What SLURM tells the tasks of a job step in their environment."""

from __future__ import annotations

import os
import re

from amdim.errors import UsageError

PORTS = range(20000, 30000)  # below those that the kernel hands out by itself


def ranks() -> tuple[int, int, int, int] | None:
    """Rank, ranks, rank on this machine, ranks on this machine; None outside a step of several tasks.

    A batch script is a task too, with the whole job's SLURM_NTASKS: it is told by having no step, and trains alone.
    """
    world = whole("SLURM_STEP_NUM_TASKS", whole("SLURM_NTASKS", 1))
    in_batch_script = "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ
    if "SLURM_PROCID" not in os.environ or world == 1 or in_batch_script:
        return None
    return whole("SLURM_PROCID", 0), world, whole("SLURM_LOCALID", 0), tasks_here(world)


def tasks_here(world: int) -> int:
    """Tasks of this step on this machine: entry SLURM_NODEID of a list like "4(x2),3"."""
    counts: list[int] = []
    listed = os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("SLURM_TASKS_PER_NODE", str(world)))
    for count, repeats in re.findall(r"(\d+)(?:\(x(\d+)\))?", listed):
        counts += [int(count)] * int(repeats or 1)
    return counts[min(whole("SLURM_NODEID", 0), len(counts) - 1)] if counts else world


def address() -> tuple[str, int]:
    """Where rank 0 of this step listens: its machine, the first of the list, and a port that follows from the job's number."""
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_JOB_NODELIST", "localhost"))
    job = whole("SLURM_JOB_ID", 0) + 101 * whole("SLURM_STEP_ID", 0)
    return first_node(nodes), PORTS[job % len(PORTS)]


def whole(name: str, otherwise: int) -> int:
    """A variable of the environment that launchers set.

    Raises:
        UsageError: it holds something else.
    """
    text = os.environ.get(name)
    if text is not None and not text.isdigit():
        raise UsageError(f"{name}={text}: is no whole number; unset it, or set it to one")
    return otherwise if text is None else int(text)


def first_node(nodes: str) -> str:
    """The first machine of a list like "rack[1-2]node[003-004,007],other"."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)
