"""What ends views on a GPU: its arithmetic in Triton's interpreter, its kernels compiled for GPUs that are not here."""

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from pipeline import colours_triton, operations_triton, painted  # noqa: E402

ROOT = Path(__file__).parents[2]
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
COLOURS = {"levels": "*u8", "table": "*fp32", "out": "*fp16", "P": "i32", "columns": "i32", "BLOCK": "constexpr"}
OPERATIONS = {"levels": "*u8", "numbers": "*i64", "factors": "*fp32", "out": "*u8", "S": "i32", "BLOCK": "constexpr"}
KERNELS = {
    "exact": (colours_triton, "_exact", COLOURS),
    "fused": (colours_triton, "_fused", COLOURS),
    "operations": (operations_triton, "_operate", OPERATIONS),
}


def test_arithmetic_in_the_interpreter():
    """In another process, as Triton chooses between interpreter and compiler when it is imported."""
    checks = ROOT / "tests" / "pipeline" / "interpreted.py"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", str(checks)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ passed", result.stdout)
    assert "skipped" not in result.stdout


def check_compiled(name, arch, directory, monkeypatch):
    """Without local memory, and without products contracted with sums, which would not be the CPU's bits."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(directory))
    module, kernel, signature = KERNELS[name]
    constants = {(list(signature).index("BLOCK"),): module.BLOCK}
    source = ASTSource(getattr(module, kernel), signature, constants)
    options = {"num_warps": module.WARPS, "enable_fp_fusion": False}
    binary = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    file = directory / "kernel.cubin"
    file.write_bytes(binary.asm["cubin"])
    listing = subprocess.run([TOOLS / "cuobjdump", "--dump-resource-usage", file], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) .*LOCAL:(\d+)", listing.stdout)
    assert found, listing.stdout
    assert (int(found[1]) <= 64, int(found[2])) == (True, 0)
    assert "fma.rn.f32" not in binary.asm["ptx"]


@pytest.mark.parametrize("name", KERNELS)
def test_compiles_without_spills(name, tmp_path, monkeypatch):
    check_compiled(name, 90, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("arch", [80, 100])
@pytest.mark.parametrize("name", KERNELS)
def test_compiles_for_every_generation_without_spills(name, arch, tmp_path, monkeypatch):
    check_compiled(name, arch, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("device", "package", "capability", "compiler", "served"),
    [
        ("cuda", True, (8, 0), "/usr/bin/gcc", True),
        ("cuda", True, (7, 5), "/usr/bin/gcc", False),
        ("cuda", False, (9, 0), "/usr/bin/gcc", False),
        ("cuda", True, (9, 0), None, False),
        ("cpu", True, (9, 0), "/usr/bin/gcc", False),
    ],
)
def test_serves_where_the_kernels_can_be_launched(device, package, capability, compiler, served, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    with (
        patch.object(painted, "has_triton_package", lambda: package),
        patch.object(torch.cuda, "get_device_capability", lambda _: capability),
        patch("shutil.which", lambda name: compiler if name == "gcc" else None),
    ):
        assert painted.serves(torch.device(device)) is served
