"""What Triton's compiler makes of kernels for GPUs that are not here."""

import re
import subprocess
from pathlib import Path

import triton

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def resources(cubin, directory):
    """Registers a thread, and bytes a thread of local memory: its stack and what registers spill."""
    file = directory / "kernel.cubin"
    file.write_bytes(cubin)
    listing = subprocess.run([TOOLS / "cuobjdump", "--dump-resource-usage", file], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", listing.stdout)
    assert found, listing.stdout
    registers, stack, local = map(int, found.groups())
    return registers, stack + local
