"""Shards to two independently augmented views per image, on the device that trains."""

from pipeline.loader import AugmentedLoader, EvalLoader, TwoViewLoader, Views
from pipeline.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "AugmentedLoader", "EvalLoader", "Recipe", "TwoViewLoader", "Views"]
