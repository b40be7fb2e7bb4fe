"""AMDIM: encoder, objective and probes. Of torch and safetensors alone, importable on its own."""

from model.amdim import AMDIM, Losses
from model.encoder import Encoder, EncoderConfig, Features
from model.load import load_encoder
from model.nce import MultiscaleLoss, multiscale_nce, nce
from model.partition import partition
from model.probe import LinearProbe, MLPProbe, probe_loss

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
    "partition",
    "probe_loss",
]
