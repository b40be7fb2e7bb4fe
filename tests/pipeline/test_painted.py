"""What ends views on a GPU: its arithmetic in Triton's interpreter, its kernels compiled for GPUs that are not here."""

import re
from unittest.mock import patch

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from amdim.pipeline.augment import autoaugment_triton, color_jitter_triton, gpu  # noqa: E402
from tests.offline import pass_in_the_interpreter, resources  # noqa: E402

COLOURS = {"levels": "*u8", "table": "*fp32", "out": "*fp16", "P": "i32", "columns": "i32", "BLOCK": "constexpr"}
OPERATIONS = {
    "levels": "*u8",
    "numbers": "*i64",
    "factors": "*fp32",
    "out": "*u8",
    "S": "i32",
    "step": "i32",
    "BLOCK": "constexpr",
}
KERNELS = {
    "exact": (color_jitter_triton, "_exact", COLOURS),
    "fused": (color_jitter_triton, "_fused", COLOURS),
    "operations": (autoaugment_triton, "_operate", OPERATIONS),
}


def test_arithmetic_in_the_interpreter():
    pass_in_the_interpreter("tests/pipeline/interpreted.py")


def check_compiled(name, arch, aligned, directory, monkeypatch):
    """Without local memory, and without products contracted with sums, which would not be the CPU's bits.

    As launches see it: P and S divide by 16 or do not. Of 256 threads with 128 registers, two blocks fit a processor.
    """
    monkeypatch.setenv("TRITON_CACHE_DIR", str(directory))
    module, kernel, signature = KERNELS[name]
    names = list(signature)
    divides = [each for each, kind in signature.items() if kind.startswith("*") or (aligned and each in ("P", "S"))]
    source = ASTSource(
        getattr(module, kernel),
        signature,
        {(names.index("BLOCK"),): module.BLOCK},
        attrs={(names.index(each),): [["tt.divisibility", 16]] for each in divides},
    )
    options = {"num_warps": module.WARPS, "enable_fp_fusion": False}
    binary = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    registers, spilled = resources(binary.asm["cubin"], directory)
    assert registers <= 128
    assert spilled <= (16 if arch == 100 else 0)
    assert not re.search(r"\bfma\.rn\.f(32|64)", binary.asm["ptx"])


@pytest.mark.parametrize("name", KERNELS)
def test_compiles_without_spills(name, tmp_path, monkeypatch):
    check_compiled(name, 90, True, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("name", KERNELS)
def test_compiles_for_every_generation_without_spills(name, aligned, arch, tmp_path, monkeypatch):
    check_compiled(name, arch, aligned, tmp_path, monkeypatch)


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
        patch.object(gpu, "has_triton_package", lambda: package),
        patch.object(torch.cuda, "get_device_capability", lambda _: capability),
        patch("shutil.which", lambda name: compiler if name == "gcc" else None),
    ):
        assert gpu.is_available(torch.device(device)) is served
