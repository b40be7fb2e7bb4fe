"""The most memory that this process has held at a time."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def most_resident() -> int:
    """Bytes. The kernel's record of this program alone where there is one; getrusage counts what started it, too."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
