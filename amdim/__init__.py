"""AMDIM pretraining: images to shards, two augmented views, an encoder trained by multi-scale InfoNCE, and probes.

In a checkout this directory holds links to the packages next to it; an installed package holds the packages themselves.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amdim.model import AMDIM, Encoder, EncoderConfig, load_encoder
    from amdim.pipeline import RECIPES, EvalLoader, Recipe, TwoViewLoader, Views

__all__ = ["AMDIM", "RECIPES", "Encoder", "EncoderConfig", "EvalLoader", "Recipe", "TwoViewLoader", "Views", "load_encoder"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: ``load_encoder`` needs no DALI, and ``amdim.shards`` no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    package = "model" if name in ("AMDIM", "Encoder", "EncoderConfig", "load_encoder") else "pipeline"
    return getattr(import_module(f"{__name__}.{package}"), name)
