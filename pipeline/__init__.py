"""Shards to two independently augmented views per image, on the device that trains."""

from amdim.pipeline.augment.recipes import RECIPES, Recipe
from amdim.pipeline.loaders import AugmentedLoader, EvalLoader, TwoViewLoader, Views

__all__ = ["RECIPES", "AugmentedLoader", "EvalLoader", "Recipe", "TwoViewLoader", "Views"]
