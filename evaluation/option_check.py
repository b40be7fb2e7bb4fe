"""What `eval.py` does, by the option that asks for it, and the options each of these takes: no other is silently ignored."""

from __future__ import annotations

import typer

from amdim.engine.config_file import was_typed
from amdim.errors import UsageError

WEIGHTS = {"run", "checkpoint", "last"}
SHARDS = {"data", "cache_dir", "cache_gb"}
ALWAYS = {"compared", "gpus", "debug"}
TAKES = {
    "imported": {"out"},
    "compare": set(),
    "report": WEIGHTS | SHARDS,
    "curve": {"run", "checkpoint"},
    "export": WEIGHTS | {"features_out"},
    "features_out": WEIGHTS | SHARDS | {"export"},
    "segments": WEIGHTS | SHARDS,
}


def check_modes(ctx: typer.Context) -> None:
    """Refuses options that what is asked for does not take; without any of ``TAKES`` it is probes, whose plan is checked later.

    Raises:
        UsageError: names the option.
    """
    typed = {p.name: p.opts[0] for p in ctx.command.params if p.name and was_typed(ctx, p.name)}
    modes = [name for name in TAKES if name in typed]
    takes = ALWAYS.union(modes[:1], *(TAKES[mode] for mode in modes))
    for name, option in typed.items():
        if modes and name not in takes:
            raise UsageError(f"{option}: is of no use to {typed[modes[0]]}; leave it out, or give it in a command of its own")
