"""The wheel, installed: one import name, three commands, in a directory whose own files have the names of our packages."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CLOCK = 280  # seconds; a test has 300
PROGRAM = """
import amdim, torch
from amdim import TwoViewLoader, load_encoder, RECIPES
views = next(iter(TwoViewLoader("set", ["train"], RECIPES["shapes32"], 8)))
print(views.x1.shape, load_encoder("runs/one/checkpoints/step-2")(views.x1)[0].shape, amdim.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.splitlines():
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", ".", "-w", str(out)]
    subprocess.run(pip, cwd=source, check=True, timeout=CLOCK)
    return next(out.glob("*.whl"))


def test_a_wheel_puts_one_name_into_site_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"amdim"}
    expected = ("amdim/py.typed", "amdim/train.py", "amdim/model/encoder.py", "amdim/evaluation/report/page.css")
    assert set(expected) <= set(names)
    assert "amdim/pipeline/augment/fast_autoaugment.csv" in names
    for command in ("amdim-train", "amdim-eval", "amdim-shards"):
        assert command in entry_points


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The ``bin`` of a fresh environment that holds the wheel, and sees the packages of this one."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=CLOCK)
    python = home / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, timeout=CLOCK)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "packages.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")) + "\n")
    return home / "bin"


def test_its_commands_and_objects_work_beside_files_of_the_same_names(installed, tmp_path):
    for name in ("model", "engine", "shards", "pipeline", "errors", "evaluation"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('somebody else has a file of this name')\n")

    def run(*words, code=0):
        environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
        result = subprocess.run(
            [installed / words[0], *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=CLOCK,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    from PIL import Image

    for number in range(24):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").rotate(15 * number).convert("RGB").resize((40, 40)).save(path)
    run("amdim-shards", "build", "folder", "--src", "photos", "--out", "set", "--workers", "1")
    small = ("--preset", "demo", "--config", str(ROOT / "tests/small.toml"), "--batch-size", "8", "--gpus", "0")
    said = run("amdim-train", "--data", "./set", *small, "--steps", "2", "--run", "one")
    assert "Next: amdim-eval --probe linear --run runs/one" in said
    run("amdim-eval", "--probe", "knn", "--run", "one", "--no-baselines", "--gpus", "0")
    assert "torch.Size([8, 3, 32, 32])" in (said := run("python", "-c", PROGRAM))
    assert str(installed.parent) in said
    assert "amdim-eval: runs/two: no run" in run("amdim-eval", "--run", "two", code=2)
    assert "train one with `amdim-train" in run("amdim-eval", "--run", "two", code=2)
