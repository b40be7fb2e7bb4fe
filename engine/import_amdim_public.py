"""A checkpoint of amdim-public as a run of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from amdim.engine import checkpoint
from amdim.engine.json_file import as_json
from amdim.engine.presets import Preset
from amdim.engine.runs import Config
from amdim.errors import UsageError, UserError
from amdim.fileio import locked
from amdim.model import amdim_public
from amdim.model.amdim_public import Imported

PRESET = "amdim-public"
RECIPES = {32: "cifar32", 64: "stl64", 128: "imagenet128"}  # the original has an encoder size for each


def import_run(file: Path, out: Path) -> Imported:
    """Writes the run directory ``out``, which appears whole or not at all.

    Raises:
        UsageError: ``file`` is not there, or ``out`` is.
        UserError: ``file`` is no whole checkpoint of amdim-public; the text says why.
    """
    if not file.is_file():
        raise UsageError(f"--import-amdim-public {file}: no such file")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: exists already; give another directory")
    try:
        found = amdim_public.load(file)
    except amdim_public.Unreadable as error:
        raise UserError(f"{error}; nothing was written") from error
    write(found, out)
    return found


def write(found: Imported, out: Path) -> None:
    temporary = out.with_name(f".{out.name}.tmp")
    fields = config(found).as_dict()
    with locked(temporary, "another process imports here; wait for it, or give another --out"):
        try:
            (temporary / "config.json").write_bytes(as_json(fields))
            checkpoint.save(temporary / "checkpoints", found.step, found.modules().state_dict(), {"step": found.step}, fields)
            temporary.rename(out)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def config(found: Imported) -> Config:
    """What the file says of how it was made; where it says nothing, the original's defaults stand."""
    encoder = found.encoder.config
    settings = Preset(encoder, RECIPES[encoder.size], epochs=found.epoch, clip=found.clip)
    return Config("", PRESET, settings, found.step, seed=0, amp="auto", save_every="10m")


def summary(file: Path, found: Imported) -> list[tuple[str, str]]:
    """What was read, as a table."""
    net = found.encoder.config
    count = sum(parameter.numel() for parameter in found.encoder.parameters())
    inner = ", batch normalisation inside" if net.use_bn else ""
    return [
        ("read", str(file)),
        (
            "encoder",
            f"{net.size} px, w {net.width}, R {net.embedding}, d {net.depth}{inner}, {count:,} weights; clip {found.clip:g}",
        ),
        ("probes", f"linear and MLP, {found.classes:,} classes"),
        ("trained", f"{found.epoch:,} epochs, {found.step:,} updates"),
    ]
