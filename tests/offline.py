"""What Triton makes of kernels where there is no GPU: its interpreter runs them, its compiler compiles them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import triton

ROOT = Path(__file__).parent.parent
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


def pass_in_the_interpreter(checks):
    """All tests of a file, none skipped, in another process: Triton chooses interpreter or compiler when it is imported."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", str(ROOT / checks)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ passed", result.stdout)
    assert "skipped" not in result.stdout
