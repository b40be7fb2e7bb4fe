"""Out of memory is one line with what was asked, what there is and what to try."""

import re

import numpy as np
import pytest
import torch

from amdim.engine.monitor import memory
from amdim.engine.monitor.memory import advice, explained, shortage
from amdim.errors import UserError, is_shortage

CUDA = (
    "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 79.25 GiB of which 512.00 MiB is free. "
    "Process 1 has 78.70 GiB memory in use. Of the allocated memory 70.10 GiB is allocated by PyTorch."
)


def test_a_gpu():
    assert is_shortage(torch.OutOfMemoryError(CUDA))
    assert shortage(CUDA) == "out of memory: 2.25 GiB more were asked for, and of the GPU's 79.25 GiB 0.50 GiB are free"


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "CUDA allocation failed",
        "Can't allocate 2147483648 bytes on device 0.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_a_gpu_by_libraries_that_have_no_error_of_their_own_for_it(words, monkeypatch):
    assert is_shortage(RuntimeError(words))
    asked = "2.00 GiB more were asked for" if "2147483648" in words else "more was asked for"
    assert shortage(words) == f"out of memory: {asked} on the GPU"  # which cannot be asked here, nor where it is full
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**28, 80 * 2**30))
    assert shortage(words) == f"out of memory: {asked}, and of the GPU's 80.00 GiB 0.25 GiB are free"


def test_another_error_is_none():
    assert not is_shortage(RuntimeError("CUDA error: an illegal memory access was encountered"))


def of_torch():
    torch.empty(2**60, dtype=torch.uint8)


def of_numpy():
    np.empty(2**60, np.uint8)


def of_python():
    raise MemoryError


@pytest.mark.parametrize(
    ("exhaust", "asked"),
    [
        (of_torch, "1073741824.00 GiB more were asked"),
        (of_numpy, "1073741824.00 GiB more were asked"),
        (of_python, "more was asked"),
    ],
)
def test_allocations_that_fail_here(exhaust, asked):
    with pytest.raises(UserError) as error, explained(["--batch-size 8", "less"]):
        exhaust()
    line = str(error.value)
    assert line.startswith(f"out of memory: {asked} for, ")
    assert re.search(r"of this machine's [\d.]+ GiB [\d.]+ [GM]iB are free; try --batch-size 8, or less$", line)


def test_a_container_has_what_it_is_allowed(tmp_path, monkeypatch):
    free, total = memory.machine_memory()
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("4096\n")
    assert memory.machine_memory()[1] == total
    (tmp_path / "memory.max").write_text("12288\n")
    assert memory.machine_memory() == (min(free, 8192), 12288)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), explained([]):
        raise RuntimeError("shapes differ")


def test_what_is_done_already_is_not_advised():
    assert advice(480, 8, False, False) == [
        "--batch-size 240 (it is 480)",
        "--checkpoint-activations",
        "--amp bf16",
        "a smaller --preset",
    ]
    assert advice(24, 8, True, True) == ["--batch-size 16 (it is 24)", "a smaller --preset"]
    assert advice(16, 8, True, True) == advice(2, 1, True, True) == ["a smaller --preset"]


def test_a_run_that_goes_on_is_advised_what_it_may_change():
    """Another batch, precision or preset would be refused."""
    assert advice(480, 8, False, True, begun=True) == [
        "--checkpoint-activations",
        "another --run with --batch-size 240 (it is 480) or a smaller --preset",
    ]
