"""The contact sheet of views."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from amdim.pipeline.augment.recipes import STL64, STRONG128
from amdim.pipeline.preview import GAP, PAIRS, ROWS, as_pixels, contact_sheet


def test_rows_of_an_image_and_pairs_of_its_views(photo_set):
    sheet = contact_sheet(photo_set, STRONG128)
    columns = 1 + 2 * PAIRS
    assert sheet.height == ROWS * (128 + GAP) - GAP
    assert sheet.width == columns * 128 + PAIRS * GAP + PAIRS * 2 * GAP
    pixels = np.asarray(sheet)
    assert (pixels[:, 128:136] == 255).all()  # the gap after the image
    assert pixels[:128, :128].std() > 0


def test_small_views_are_scaled_up(photo_set):
    assert contact_sheet(photo_set, STL64).height == 2 * (ROWS * (64 + GAP) - GAP)


def test_undoes_the_normalisation():
    import torch

    gray = (torch.full((1, 3, 2, 2), 0.5) - torch.tensor(STL64.mean).view(3, 1, 1)) / torch.tensor(STL64.std).view(3, 1, 1)
    assert (as_pixels(gray, STL64) == 128).all()


@pytest.mark.parametrize("recipe", [None, "cifar32", "nonsense"])
def test_command_line(photo_set, tmp_path, recipe):
    import typer

    from amdim.errors import UsageError
    from amdim.pipeline.preview import main

    app = typer.Typer()
    app.command()(main)
    arguments = [str(photo_set), "--out", str(tmp_path / "v.png"), *(["--recipe", recipe] if recipe else [])]
    result = CliRunner().invoke(app, arguments)
    if recipe == "nonsense":
        assert isinstance(result.exception, UsageError)
    else:
        assert Image.open(tmp_path / "v.png").width > 500
