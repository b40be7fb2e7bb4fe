"""Which encoders are compiled, and what is said where one cannot be."""

import pytest
import torch

from engine import compiling
from errors import UsageError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_leaves_a_cpu_to_its_products():
    assert not compiling.choose("auto", CPU).on


@pytest.mark.parametrize("works", [True, False])
def test_auto_compiles_on_a_gpu_where_triton_works(monkeypatch, works):
    monkeypatch.setattr(compiling, "has_triton", lambda: works)
    assert compiling.choose("auto", GPU).on is works


def test_what_is_asked_for_and_cannot_be_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"--compile on: there is no C\+\+ compiler"):
        compiling.choose("on", CPU)
    with pytest.raises(UsageError, match="--compile maybe: give auto, on or off"):
        compiling.choose("maybe", CPU)
