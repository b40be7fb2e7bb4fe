"""Processor time and memory of this process and its children, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def family() -> list[Path]:
    """This process and those under it, as directories of /proc."""
    parents = {int(home.name): parent(home) for home in Path("/proc").iterdir() if home.name.isdigit()}
    found, waiting = [], [os.getpid()]
    while waiting:
        one = waiting.pop()
        found.append(Path(f"/proc/{one}"))
        waiting += [process for process, above in parents.items() if above == one]
    return found


def parent(home: Path) -> int:
    """The process above, or 0 for one that has just ended."""
    try:
        return int(fields(home)[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def fields(home: Path) -> list[str]:
    """What follows the name in `stat`: the name ends at the last bracket, and may hold spaces."""
    return (home / "stat").read_text().rpartition(")")[2].split()


def processor_seconds() -> float:
    """User and system time of the family so far."""
    return sum(int(time) for home in family() for time in fields(home)[11:13]) / TICK


def peak_bytes() -> int:
    """The sum of each one's greatest resident memory; pages that several share count for each."""
    lines = [line for home in family() for line in (home / "status").read_text().splitlines() if line.startswith("VmHWM")]
    return sum(int(line.split()[1]) * 1024 for line in lines)
