"""Measure what must not move: shards of every source, batches of every recipe, a short training and its probes.

    python -m tests.golden.measure HOME

Every value has two forms. ``bits`` is a hash, equal for equal processors and versions of packages. ``near`` is a list of numbers
that other processors reach too, up to ``within``: a difference, or one relative to numbers above 1.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from amdim.pipeline import TwoViewLoader
from amdim.pipeline.augment.recipes import RECIPES
from amdim.shards import manifest
from amdim.shards.build import build
from amdim.shards.cli import app
from amdim.shards.shapes import renderer
from tests.golden.inputs import write_inputs

ROOT = Path(__file__).parents[2]
PACKAGES = ("numpy", "numba", "torch", "pillow", "nvidia-dali-cuda120")
CPU = ["--gpus", "0"]
SCORES = ("top1", "top1_random_init", "top1_raw_pixels", "n_test")
NOT_THE_SAME = ("data", "run", "checkpoint", "seconds", "weights")  # of two equal evaluations in two places

Value = dict[str, Any]


def main(home: Path) -> dict[str, Value]:
    """Return all values by name; ``home`` is an empty directory to work in."""
    home.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found: dict[str, Value] = {}
    for name, arguments in write_inputs(home / "inputs").items():
        out = home / "sets" / name.replace(" ", "-")
        result = CliRunner().invoke(app, ["build", *arguments, "--out", str(out), "--workers", "1"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        found[f"shards: {name}"] = shard_set(out)
    options: dict[str, Any] = {"seed": 0, "workers": 1, "max_rejected": 0.0, "overwrite": False, "show": lambda _: None}
    build(renderer.source(0, {"train": 640, "val": 160}), home / "sets/shapes", **options)
    found["shards: shapes"] = shard_set(home / "sets/shapes")
    for name in RECIPES:
        for back_end in ("torch", "dali"):
            found[f"batches: {name}, {back_end}"] = batches(home / "sets/folder", name, back_end)
    return found | training(home) | probes(home)


def machine() -> dict[str, str]:
    """What bits may depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    return {"processor": digest([" ".join(processor).encode()])} | {name: version(name) for name in PACKAGES}


def digest(parts: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:32]


def shard_set(directory: Path) -> Value:
    """Tars and indexes as bits; images of each split, their mean level and the sum of their labels as numbers."""
    files = sorted(path for path in directory.iterdir() if path.suffix in (".tar", ".npy", ".idx"))
    near: list[float] = []
    for split in sorted(manifest.load(directory).splits):
        images = list(members(directory, split, (".jpg", ".png", ".webp")))
        labels = [int(data) for data in members(directory, split, (".cls",))]
        levels = [float(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).mean()) for data in images]
        near += [len(images), sum(levels) / len(levels), sum(labels)]
    return {
        "bits": digest(part for path in files for part in (path.name.encode(), path.read_bytes())),
        "near": near,
        "within": 1e-3,
    }


def members(directory: Path, split: str, suffixes: tuple[str, ...]) -> Iterator[bytes]:
    for shard in manifest.load(directory).splits[split].shards:
        with tarfile.open(directory / shard.file) as archive:
            for info in archive:
                if Path(info.name).suffix in suffixes:
                    yield archive.extractfile(info).read()  # type: ignore[union-attr]


def batches(directory: Path, recipe: str, back_end: str) -> Value:
    """The first three batches, and of each of their views the means of its quarters."""
    loader = TwoViewLoader(directory, ["train"], RECIPES[recipe], 8, seed=7, threads=1, pixels=back_end)
    parts, near = [], []
    for views in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), 3):
        parts.append(views.label.numpy().tobytes())
        for x in views[:2]:
            parts.append(x.contiguous().numpy().tobytes())
            near += torch.nn.functional.adaptive_avg_pool2d(x, 2).mean((0, 1)).flatten().tolist()
    return {"bits": digest(parts), "near": near, "within": 0.02}


def command(home: Path, *words: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *words], cwd=home, env=environment, check=True, capture_output=True)


def training(home: Path) -> dict[str, Value]:
    """``demo``: 20 steps with the checkpoint of the fifth, and 20 lines of losses of a narrow encoder."""
    demo = ["--data", f"{home}/sets/shapes", "--preset", "demo", *CPU, "--amp", "off"]
    command(
        home, f"{ROOT}/train.py", *demo, "--batch-size", "32", "--steps", "20", "--save-every", "5", "--keep", "9", "--run", "a"
    )
    narrow = ["--config", f"{ROOT}/tests/small.toml", "--batch-size", "16", "--steps", "400", "--run", "b"]
    command(home, f"{ROOT}/train.py", *demo, *narrow)
    return {
        "weights of demo after 5 steps": weights(home / "runs/a/checkpoints/step-5"),
        "weights of demo after 20 steps": weights(home / "runs/a/checkpoints/step-20"),
        "loss of 20 steps of demo": losses(home / "runs/a"),
        "20 losses of demo, narrow": losses(home / "runs/b"),
    }


def weights(checkpoint: Path) -> Value:
    """The values of all tensors, whatever the file; their root mean squares as numbers."""
    tensors = dict(sorted(load_file(checkpoint / "model.safetensors").items()))
    near = [float(x.double().square().mean().sqrt()) for x in tensors.values()]
    bits = digest(part for name, x in tensors.items() for part in (name.encode(), x.numpy().tobytes()))
    return {"bits": bits, "near": near, "within": 1e-3}


def losses(run: Path) -> Value:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("loss", "loss_1t5", "loss_1t7", "loss_5t5", "regulariser", "probes", "lr")
    values = [float(row[name]) for row in rows for name in names]
    return {"bits": digest([json.dumps(values).encode()]), "near": values, "within": 0.03}


def probes(home: Path) -> dict[str, Value]:
    """``eval-linear.json`` and ``eval-knn.json`` of that training."""
    command(home, f"{ROOT}/eval.py", "--probe", "linear,knn", "--run", "a", *CPU)
    found = {}
    for name in ("linear", "knn"):
        result = json.loads((home / f"runs/a/eval-{name}.json").read_text())
        same = {key: value for key, value in sorted(result.items()) if key not in NOT_THE_SAME}
        near = [float(result[key]) for key in SCORES]
        found[f"eval-{name}.json"] = {"bits": digest([json.dumps(same).encode()]), "near": near, "within": 0.05}
    return found


def measured(home: Path) -> dict[str, Any]:
    return {"machine": machine(), "values": main(home)}


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]).absolute()), indent=1))
