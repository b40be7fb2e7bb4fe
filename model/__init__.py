"""AMDIM: encoder, objective and probes. Of torch and safetensors alone, importable on its own."""

from amdim.model.amdim import AMDIM, Losses
from amdim.model.encoder import Encoder, EncoderConfig, Features
from amdim.model.io import load_encoder
from amdim.model.multiscale_nce import MultiscaleLoss, multiscale_nce, nce
from amdim.model.probes import LinearProbe, MLPProbe, probe_loss
from amdim.model.streaming_nce import nce_sums

__all__ = [
    "AMDIM",
    "Encoder",
    "EncoderConfig",
    "Features",
    "LinearProbe",
    "Losses",
    "MLPProbe",
    "MultiscaleLoss",
    "load_encoder",
    "multiscale_nce",
    "nce",
    "nce_sums",
    "probe_loss",
]
