"""Which number format the encoder computes in, and why. Scores, statistics and weights stay float32."""

from __future__ import annotations

from typing import NamedTuple

import torch

from amdim.errors import UsageError

ASKED = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}


class Precision(NamedTuple):
    """``dtype`` of autocast, or None for float32 throughout; ``reason`` is for the start-up table."""

    dtype: torch.dtype | None
    reason: str

    @property
    def name(self) -> str:
        return str(self.dtype or torch.float32).removeprefix("torch.")

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Scales the loss where float16's small exponent needs it, and does nothing elsewhere."""
        return torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)


def choose(amp: str, device: torch.device) -> Precision:
    """What was asked for; for "auto" bfloat16 where the hardware has it natively, else float16 on CUDA, else float32."""
    if amp in ASKED:
        return Precision(ASKED[amp], "asked for")
    if amp != "auto":
        raise UsageError(f"--amp {amp}: give auto, {', '.join(ASKED)}")
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(torch.bfloat16, "native here") if native else Precision(torch.float16, "bfloat16 is not native here")
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return Precision(torch.bfloat16, "this CPU has AVX512-BF16 or AMX")
    return Precision(None, "this CPU has neither AVX512-BF16 nor AMX")
