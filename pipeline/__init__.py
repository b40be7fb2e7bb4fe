"""Shards to two independently augmented views per image, on the device that trains."""

from pipeline.loader import EvalLoader, TwoViewLoader, Views
from pipeline.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "EvalLoader", "Recipe", "TwoViewLoader", "Views"]
