"""The emergent segmentation as a picture: images, posteriors as colours, masks."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.patches import Patch
from torch import Tensor

from amdim.evaluation.figures import save_figure
from amdim.evaluation.segmentation.measure import Segmentation

COLUMNS = 3  # images beside one another, each of three pictures
CAPTION = (
    "Each triple: the image; the posterior over components, one colour each, blended where it is undecided; the mask, "
    "which training never saw.\nLook for the object in a colour that the background around it does not have."
)


def draw_segments(found: Segmentation, run: Path) -> Path:
    """Draws ``run/segments.png``."""
    rows = -(-len(found.rgb) // COLUMNS)
    figure, grid = plt.subplots(rows, 3 * COLUMNS, figsize=(11, 1.3 * rows + 1.2), layout="constrained", squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for i, triple in enumerate(zip(found.rgb, blend(found.posterior), found.masks, strict=True)):
        cells = grid[i // COLUMNS, 3 * (i % COLUMNS) :]
        draw_triple(cells, *triple)
    colours = palette(found.posterior.shape[1])
    patches = [Patch(color=colour, label=f"component {k + 1}") for k, colour in enumerate(colours)]
    figure.legend(handles=patches, loc="outside lower center", ncols=8, frameon=False, fontsize=8)
    figure.suptitle(CAPTION, fontsize=9, x=0.01, ha="left")
    return save_figure(figure, run / "segments.png", dpi=120)


def draw_triple(cells: list[plt.Axes], rgb: Tensor, posterior: Tensor, mask: Tensor) -> None:
    cells[0].imshow(rgb.permute(1, 2, 0).clamp(0, 1))
    cells[1].imshow(posterior)
    cells[2].imshow(mask, cmap="gray", vmin=0, vmax=1)


def palette(components: int) -> list[tuple[float, ...]]:
    colours = plt.get_cmap("tab10")
    return [colours(k % 10)[:3] for k in range(components)]


def blend(posterior: Tensor) -> Tensor:
    """(n, K, S, S) -> (n, S, S, 3): the components' colours in the proportion of their probabilities."""
    colours = posterior.new_tensor(palette(posterior.shape[1]))
    return (posterior.permute(0, 2, 3, 1) @ colours).clamp(0, 1)
