"""Runs on disk: their names, their configuration, and which checkpoint a command means."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import torch

from amdim.engine import checkpoint
from amdim.engine.json_file import read_json
from amdim.engine.presets import Preset
from amdim.errors import UsageError, UserError, first_line
from amdim.model.encoder import EncoderConfig

RUNS = Path("runs")
# By a resumed run. The loader knows whether data are the same; what kernel, compiled and compress do to numbers is a warning.
MAY_CHANGE = {"save_every", "keep", "data", "kernel", "compiled", "compress"}


@dataclass(frozen=True)
class Config:
    """What decides a run's numbers, and how it saves; written as config.json."""

    data: str
    preset: str
    settings: Preset
    steps: int
    seed: int
    amp: str
    save_every: str
    init: str | None = None  # the weights that it started from; whoever goes on with the run has them already
    pixels: str = "auto"
    keep: int = 2
    views: dict[str, Any] | None = None  # every field of their recipe, so that no file is needed to see as the run did
    kernel: str = "torch"
    compiled: str = "auto"
    compress: str = "off"

    def as_dict(self) -> dict[str, Any]:
        fields = json.loads(json.dumps(asdict(self)))  # tuples become lists, as they will in the file
        del fields["settings"]["note"]
        return fields


def encoder_config(config: dict[str, Any]) -> EncoderConfig:
    """The encoder that a run's config.json describes."""
    return EncoderConfig(**config["settings"]["encoder"])


def data_path(data: str) -> Path | str:
    """A URL as it is; a path, or data/NAME for a name.

    Raises:
        UsageError: for an empty name.
    """
    if not data.strip():
        raise UsageError("--data: give the name of a data set in data/, or a path")
    if "://" in data:
        return data
    path = Path(data)
    return path if "/" in data or path.is_dir() else Path("data") / data


def data_of(saved: checkpoint.Checkpoint, data: str | None) -> Path | str:
    """The shard set that was asked for, or else the one that a checkpoint was trained on."""
    if data is None and not saved.config["data"]:
        raise UsageError(
            f"{saved.path}: was imported and has no data set of its own; name one with labels, as in --data imagenet"
        )
    return data_path(saved.config["data"] if data is None else data)


def default_run(data: str, config: Config) -> Path:
    """The run that the same command began on whatever day, or one named by data, preset and today's date."""
    stem = f"{data}-{config.preset}-"
    for run in sorted(RUNS.glob(f"{stem}????-??-??"), reverse=True):
        if not differences(config.as_dict(), read_config(run)):
            return run
    return RUNS / f"{stem}{date.today().isoformat()}"


def read_config(run: Path) -> dict[str, Any]:
    """A run's configuration; empty if there is none to be read, which equals no other."""
    return read_json(run / "config.json")


def run_path(run: str, option: str = "--run") -> Path:
    """A path, or runs/NAME for a name.

    Raises:
        UsageError: that names no directory of its own.
    """
    if not run.strip() or not run.isprintable() or Path(run).name in ("", ".."):
        raise UsageError(f"{option} {run!r}: give a name, as in my-run, or the path of a directory")
    return Path(run) if "/" in run else RUNS / run


def latest_run() -> Path:
    """The run with the newest checkpoint.

    Raises:
        UsageError: there is none.
    """
    saved = [path for run in RUNS.glob("*") for path in checkpoint.steps(run / "checkpoints")[:1]]
    if not saved:
        raise UsageError(f"{RUNS}/: holds no run with a checkpoint yet; train one with `python train.py`")
    return max(saved, key=lambda path: path.stat().st_mtime).parent.parent


def evaluated(run: str | None, saved: Path | None) -> Path:
    """The run that an evaluation writes to: the one that was named, or else that of a checkpoint, or else the latest.

    Raises:
        UsageError: there is none.
    """
    if run is not None:
        return run_path(run)
    if saved is None:
        return latest_run()
    if not re.fullmatch(r"step-\d+", saved.resolve().name):
        raise UsageError(f"--checkpoint {saved}: no checkpoint there; give a directory like runs/NAME/checkpoints/step-500")
    if saved.resolve().parent.name != "checkpoints":
        raise UsageError(f"--checkpoint {saved}: is not in a run's checkpoints; say with --run where its results go")
    found, here = saved.resolve().parent.parent, Path.cwd()
    return found.relative_to(here) if here in found.parents else found


def newest_checkpoint(run: Path) -> checkpoint.Checkpoint:
    """The newest checkpoint of a run that loads.

    Raises:
        UsageError: there is no such run, or it has saved nothing yet.
        UserError: none of its checkpoints loads.
    """
    if not checkpoint.steps(run / "checkpoints"):
        raise UsageError(f"{run}: no run with a checkpoint here; train one with `python train.py --run {run.name}`")
    saved = checkpoint.latest(run / "checkpoints")
    if saved is None:
        raise UserError(f"{run}: none of its checkpoints can be read; start anew with another --run")
    return saved


def find_start(run: Path, config: Config, shards: list[str], resume: str) -> checkpoint.Checkpoint | None:
    """The checkpoint to continue from, or None to begin.

    Args:
        run: the run's directory.
        config: what was asked for; it must be what the checkpoint was made with.
        shards: digests of the shards to train on, likewise.
        resume: "auto" continues what ``run`` holds, "never" refuses to; else the directory of a checkpoint.

    Raises:
        UsageError: the checkpoint is of another configuration, and the fields are named; or of another run, and ``run`` has some.
    """
    if resume in ("auto", "never"):
        saved = newest_checkpoint(run) if checkpoint.steps(run / "checkpoints") else None
        if saved and resume == "never":
            raise UsageError(f"{run}: holds a run already; give another --run, or leave out --resume never to continue it")
    else:
        saved = read(Path(resume), "--resume")
        if saved.path.resolve().parent != (run / "checkpoints").resolve() and checkpoint.steps(run / "checkpoints"):
            raise UsageError(f"--resume {resume}: is of another run, and {run} has checkpoints of its own; give another --run")
    if saved:
        check_whole(saved)
        of_data = [] if saved.trainer["loader"]["fingerprint"].get("shards") == shards else ["data"]
        check_same(run, of_data + differences(config.as_dict(), saved.config))
    return saved


def read(path: Path, option: str) -> checkpoint.Checkpoint:
    if not re.fullmatch(r"step-\d+", path.name) or not path.is_dir():
        words = "auto, never, or " if option == "--resume" else ""
        raise UsageError(f"{option} {path}: no checkpoint there; give {words}a directory like runs/NAME/checkpoints/step-500")
    try:
        return checkpoint.load(path)
    except checkpoint.DAMAGE as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); take another checkpoint") from error


def check_whole(saved: checkpoint.Checkpoint) -> None:
    """That there is more than weights, as in an imported checkpoint."""
    if "optimizer" not in saved.trainer:
        raise UsageError(f"{saved.path}: holds weights alone, no run to go on with; give --init {saved.path} and another --run")


def machine(device: torch.device) -> dict[str, str]:
    """What decides the last bits of a computation, beside what is computed."""
    return {
        "torch": str(torch.__version__),  # a plain string, or no checkpoint that holds it would load
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": str(torch.get_num_threads()),
    }


def processor() -> str:
    """The CPU's name, and the vector instructions that torch uses on it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.*)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return f"{names[0] if names else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def check_same(run: Path, changed: list[str]) -> None:
    if changed:
        names = ", ".join(changed)
        raise UsageError(f"{run}: was started with other values of {names}; repeat its options to go on, or give another --run")


def differences(own: dict[str, Any], saved: dict[str, Any]) -> list[str]:
    """Names of the fields in which two configurations differ; a field that is younger than ``saved`` had its default there."""
    settings = {each.name: each.default for each in fields(Preset)} | saved.get("settings", {})
    changed = [name for name in own if name not in MAY_CHANGE | {"settings", "init"} and own[name] != saved.get(name)]
    changed += [] if same_start(own["init"], saved.get("init")) else ["init"]
    return changed + [name for name, value in own["settings"].items() if value != settings.get(name)]


def same_start(own: str | None, saved: str | None) -> bool:
    """Whether ``--init`` names what a run started from: that checkpoint, or its run."""
    if own is None or saved is None or own == saved:
        return own == saved
    return run_path(own, "--init") in (Path(saved), Path(saved).parent.parent)
