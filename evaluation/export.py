"""A trained encoder for other programs: ``encoder.safetensors``, ``encoder.onnx`` or ``encoder.pt2``.

Beside the file stand ``<file>.json``, which says what goes in and comes out, and ``<file>.md``, a model card. Weights are
float32; images are expected normalised, and any number of them at a time.

Shape letters: B images, R embedding width, S image side.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from amdim.engine import runs
from amdim.engine.checkpoint import Checkpoint
from amdim.engine.json_file import as_json
from amdim.errors import UsageError, UserError, first_line
from amdim.evaluation.feature_extractors import trained, weights_of
from amdim.evaluation.model_card import card
from amdim.model.encoder import Encoder
from amdim.pipeline.augment.recipe_file import recipe_of

FORMAT = 1
INPUT, OUTPUTS = "images", ("r1", "r5", "r7")
PROTOBUF_LIMIT = 2**31  # bytes of one ONNX file; the weights of larger models lie in <file>.data beside it


def export(saved: Checkpoint, run: Path, file: Path, averaged: bool) -> list[Path]:
    """Writes ``file``, its configuration and its card, each whole or not at all, and returns what was written.

    Args:
        saved: the checkpoint, with the weights that are meant.
        run: its run, whose probes the card cites.
        file: its suffix says the format.
        averaged: whether the weights are a moving average, for the card.

    Raises:
        UsageError: there is no such format, or what writes it is not installed.
        UserError: it could not be written.
    """
    check(file)
    encoder = trained(saved).eval()
    fields = describe(saved, averaged)
    with named(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{file.name}.", suffix=".tmp", dir=file.parent))
    try:
        with named(file):
            WRITERS[file.suffix](encoder, temporary / file.name)
            (temporary / f"{file.name}.json").write_bytes(as_json(fields))
            (temporary / f"{file.name}.md").write_text(card(fields, run, file.name))
        for path in temporary.iterdir():  # safetensors makes its file for its owner alone
            path.chmod((temporary / f"{file.name}.json").stat().st_mode)
        # The file itself last: whoever sees it finds the others beside it.
        written = sorted(temporary.iterdir(), key=lambda path: path.name == file.name)
        return [path.replace(file.with_name(path.name)) for path in written]
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def named(file: Path) -> Iterator[None]:
    """Names the file in what a library, or a full disk, says that could not write it or what stands beside it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise UserError(f"{file}: could not be written ({why}); make room there, or name another place") from error


def check(file: Path) -> None:
    if file.suffix not in WRITERS:
        raise UsageError(f"--export {file}: name a file that ends in {', '.join(WRITERS)}")
    if file.is_dir():
        raise UsageError(f"--export {file}: is a directory; name a file that is not there yet")
    if file.suffix == ".onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UsageError(f"--export {file}: the exporter of ONNX is not here; get it with `pip install onnx onnxscript`")


def describe(saved: Checkpoint, averaged: bool) -> dict[str, Any]:
    """What the encoder is, takes and gives, and where it comes from."""
    encoder, recipe, settings = runs.encoder_config(saved.config), recipe_of(saved.config), saved.config["settings"]
    data = Path(saved.config["data"]).name  # none of an imported run, of which no more is known
    known = {"batch": settings["batch"], "recipe": settings["recipe"], "seed": saved.config["seed"]} if data else {}
    return {
        "format": FORMAT,
        "encoder": asdict(encoder),
        "input": {
            "name": INPUT,
            "shape": ["batch", 3, encoder.size, encoder.size],
            "channels": "RGB in 0..1, minus mean, divided by std",
            "mean": list(recipe.mean),
            "std": list(recipe.std),
            "resize": recipe.resize,
        },
        "outputs": {name: ["batch", encoder.embedding, side, side] for name, side in zip(OUTPUTS, (1, 5, 7), strict=True)},
        "trained": {
            "data": data,
            "preset": saved.config["preset"],
            "step": saved.trainer["step"],
            **known,
            "averaged": averaged,
            "digest": weights_of(saved),
        },
        "torch": str(torch.__version__),
    }


def write_safetensors(encoder: Encoder, file: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, file)


def write_pt2(encoder: Encoder, file: Path) -> None:
    whole = io.BytesIO()  # torch would end the process where a disk is full
    torch.export.save(program_of(encoder), whole)
    file.write_bytes(whole.getbuffer())


def write_onnx(encoder: Encoder, file: Path) -> None:
    size = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    with silence():
        found = torch.onnx.export(program_of(encoder), input_names=[INPUT], output_names=list(OUTPUTS), verbose=False)
        assert found is not None
        found.save(file, external_data=size > 0.9 * PROTOBUF_LIMIT)


WRITERS: dict[str, Callable[[Encoder, Path], None]] = {
    ".safetensors": write_safetensors,
    ".onnx": write_onnx,
    ".pt2": write_pt2,
}


class Outputs(nn.Module):
    """The encoder with a plain tuple for its outputs, which every format knows."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.encoder(images)
        return found.r1, found.r5, found.r7


def program_of(encoder: Encoder) -> torch.export.ExportedProgram:
    """Its operations, for any number of images."""
    side = encoder.config.size
    images = torch.zeros(2, 3, side, side)  # two: a size of 1 would be taken for a constant
    return torch.export.export(Outputs(encoder).eval(), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without the exporter's words on what it skips, which is of no use here."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
