"""Which number format is chosen where."""

import pytest
import torch

from engine.precision import choose
from errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def native(monkeypatch, cpu=False, cuda=False):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: cpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda and not including_emulation)


@pytest.mark.parametrize(
    ("device", "hardware", "dtype"),
    [(CPU, True, torch.bfloat16), (CPU, False, None), (CUDA, True, torch.bfloat16), (CUDA, False, torch.float16)],
)
def test_auto_takes_what_the_hardware_has(monkeypatch, device, hardware, dtype):
    native(monkeypatch, cpu=hardware, cuda=hardware)
    assert choose("auto", device).dtype is dtype


def test_a_request_is_taken_at_its_word(monkeypatch):
    native(monkeypatch)
    assert choose("bf16", CPU).dtype is torch.bfloat16
    assert choose("off", CUDA).dtype is None
    with pytest.raises(UsageError, match="fp8"):
        choose("fp8", CPU)


def test_only_float16_scales_the_loss():
    assert choose("fp16", CPU).scaler(CPU).is_enabled()
    assert not choose("bf16", CPU).scaler(CPU).is_enabled()
