"""eval.py called in the tests' own process, what it wrote, and data for it."""

import json

import numpy as np
import typer
from typer.testing import CliRunner

import amdim.eval as evaluate
from amdim.errors import explain


def invoke(*arguments):
    """eval.py in this process."""
    result = CliRunner().invoke(evaluate.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def call(*arguments, gpus=0):
    """The command in this process: what it said on failing, in one line, and its exit code; ("", 0) if it did not."""
    try:
        typer.main.get_command(evaluate.app).main([*map(str, arguments), "--gpus", str(gpus)], standalone_mode=False)
    except Exception as error:
        text, code = explain(error)
        assert len(text.splitlines()) == 1
        return text, code
    return "", 0


def found(run_directory, probe="linear"):
    return json.loads((run_directory / f"eval-{probe}.json").read_text())


def photo_folder(tmp_path, folders, size=40):
    """A shard set of noise: so many images in each folder."""
    from PIL import Image

    from tests.conftest import build

    rng = np.random.default_rng(0)
    for folder, count in folders.items():
        (tmp_path / "src" / folder).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(tmp_path / "src" / folder / f"{number}.png")
    out = tmp_path / "set"
    val = [] if any(folder.startswith("val") for folder in folders) else ["--val", "0"]
    build("folder", "--src", str(tmp_path / "src"), "--out", str(out), "--workers", "1", *val)
    return out
