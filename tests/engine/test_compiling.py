"""When torch.compile takes the encoder."""

import importlib

import pytest
import torch

from amdim.engine import compile
from amdim.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("device", "triton", "on"), [(CPU, True, False), (CUDA, True, True), (CUDA, False, False)])
def test_auto_compiles_for_gpus_that_can(monkeypatch, device, triton, on):
    monkeypatch.setattr(compile, "has_triton", lambda: triton)
    chosen = compile.choose("auto", device)
    assert chosen.on is on
    assert ("Triton" in chosen.reason) == (device is CUDA and not triton)


def test_triton_without_a_compiler_of_c_does_not_launch(monkeypatch):
    monkeypatch.setattr(compile, "has_triton", lambda: True)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    chosen = compile.choose("auto", CUDA)
    assert not chosen.on
    assert "C compiler" in chosen.reason
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    form, reason = importlib.import_module("amdim.model.streaming_nce").chosen(CUDA)
    assert form == "torch"
    assert "C compiler" in reason


def test_a_request_is_taken_at_its_word(monkeypatch):
    monkeypatch.setattr(compile, "missing", lambda _: None)
    assert compile.choose("on", CPU) == (True, "asked for")
    assert compile.choose("off", CUDA) == (False, "asked for")


def test_what_cannot_be_is_refused(monkeypatch):
    monkeypatch.setattr(compile, "has_triton", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"--compile on: there is no C\+\+ compiler"):
        compile.choose("on", CPU)
    with pytest.raises(UsageError, match="--compile on: there is no Triton"):
        compile.choose("on", CUDA)
    with pytest.raises(UsageError, match="--compile yes: give auto, on or off"):
        compile.choose("yes", CPU)


@pytest.mark.parametrize("on", [True, False])
def test_it_is_done_in_place(on):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    compile.CompileChoice(on, "").apply(module)
    assert list(module.state_dict()) == ["0.weight", "0.bias"]
    assert (module._compiled_call_impl is not None) == on
