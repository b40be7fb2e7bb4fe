"""Triton's form of ``partition``: its arithmetic in the interpreter, its kernels compiled for GPUs that are not here."""

import re

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from amdim.model import nce_triton  # noqa: E402
from amdim.model.nce_triton import GRADIENTS, SUMS, images_a_tile, shape_of  # noqa: E402
from tests.offline import pass_in_the_interpreter, resources  # noqa: E402

KERNELS = {"_sums": SUMS, "_score_gradients": GRADIENTS}  # and their tiles in half precision
POINTEES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
ARITHMETIC = {"scale": "fp32", "clip": "fp32", **dict.fromkeys(("M", "columns", "L", "R", "first"), "i32")}
TENSOR_CORES = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


def test_arithmetic_in_the_interpreter():
    pass_in_the_interpreter("tests/model/interpreted.py")


@pytest.mark.parametrize("M", [1, 7, 1024, 8192, 100_000])
@pytest.mark.parametrize("L", [1, 25, 49])
def test_workspaces_are_bounded_and_aligned(M, L):
    images = images_a_tile(M, L)
    assert images >= 1
    assert images == 1 or M * images * L * 2 <= 64 * 2**20
    assert images < 16 or images * L % 16 == 0


def compiled(name, dtype, arch, aligned_columns):
    """As a launch at R = 2560 would, of which it sees only that R divides by 16, and whether the columns do: those of 64 images
    and 49 locations do, those of the 60 that a rank of 8 has with the paper's presets do not.
    """
    kernel, shape = getattr(nce_triton, name), shape_of(dtype, KERNELS[name])
    constants = {"BM": shape.rows, "BN": shape.columns, "BK": shape.depth, "GROUP": nce_triton.GROUP}
    of_inputs = dict.fromkeys(("sources", "targets", "gradients"), "*" + POINTEES[dtype])
    names = kernel.arg_names
    types = {name: ARITHMETIC.get(name, "*fp32") for name in names} | of_inputs | {"owner": "*i64"}
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    by_the_16 = ("columns", "R") if aligned_columns else ("R",)
    aligned = [name for name in names if signature[name].startswith("*") or name in by_the_16]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return triton.compile(
        source, target=GPUTarget("cuda", arch, 32), options={"num_warps": shape.warps, "num_stages": shape.stages}
    )


def check_compiled(name, dtype, arch, aligned_columns, directory, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(directory))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # what Triton did before 3.10; 3.9 warns where nothing is said
    binary = compiled(name, dtype, arch, aligned_columns)
    registers, spilled = resources(binary.asm["cubin"], directory)
    assert 32 < registers <= 255
    assert spilled == 0
    assert binary.metadata.shared <= 99 * 1024  # the least that a block may have on GPUs from sm_80 on, as on sm_86 and sm_89
    code = binary.asm["ptx"]
    assert not re.search(r"\b(atom|red)\.", code)
    assert "tf32" not in code
    assert (TENSOR_CORES[arch] in code) == (dtype is not torch.float32)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("dtype", "arch", "aligned"), [(torch.bfloat16, 90, True), (torch.float32, 80, False)])
def test_compiles_without_spills(name, dtype, arch, aligned, tmp_path, monkeypatch):
    check_compiled(name, dtype, arch, aligned, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", POINTEES)
@pytest.mark.parametrize("arch", TENSOR_CORES)
@pytest.mark.parametrize("aligned", [True, False])
def test_compiles_for_every_generation_without_spills(name, dtype, arch, aligned, tmp_path, monkeypatch):
    check_compiled(name, dtype, arch, aligned, tmp_path, monkeypatch)
