"""Which number format is chosen where."""

from types import SimpleNamespace

import pytest
import torch

from amdim.engine.nan_guard import NotFinite
from amdim.engine.precision import choose
from amdim.engine.trainer import LEAST_SCALE, Trainer
from amdim.errors import UsageError

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


@pytest.mark.parametrize(("scale", "good"), [(LEAST_SCALE, True), (LEAST_SCALE / 2, False)])
def test_a_scale_that_has_fallen_too_low_ends_the_run_at_its_step(scale, good):
    trainer = SimpleNamespace(scaler=torch.amp.GradScaler("cpu", init_scale=scale), step=1234)
    if good:
        assert Trainer.scale(trainer) == {"loss_scale": scale}
        return
    with pytest.raises(
        NotFinite, match=r"overflow float16 at step 1,234, even 0\.000488281 times as large; .* try --amp bf16 or off"
    ):
        Trainer.scale(trainer)


def test_without_float16_there_is_no_scale_to_log():
    assert Trainer.scale(SimpleNamespace(scaler=torch.amp.GradScaler("cpu", enabled=False))) == {}
