"""PCA lighting: a colour cast along the axes in which the colours of ImageNet's pixels vary (Krizhevsky et al. 2012, AlexNet)."""

from __future__ import annotations

import numpy as np

from amdim.pipeline.augment.recipes import Recipe

# Of pixels in 0..1, with the numbers that every code has since fb.resnet.torch.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def draw(recipe: Recipe, count: int, rng: np.random.Generator) -> np.ndarray:
    """What is added to a view's red, green and blue in 0..1, after all that is done to its colours: (N, 3)."""
    if not recipe.lighting:
        return none(count)
    return (rng.normal(0, recipe.lighting, (count, 3)) * EIGENVALUES) @ EIGENVECTORS.T


def none(count: int) -> np.ndarray:
    return np.zeros((count, 3))
