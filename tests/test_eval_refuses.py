"""Bad input to eval.py: one line each, and nothing half-written."""

import json
import shutil
from pathlib import Path

import pytest

from amdim.engine import checkpoint
from tests.commands import little_room, write_sums
from tests.evaluating import call, found, photo_folder
from tests.test_train import SMALL, run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--probe", "quadratic"], "no such probe"),
        (["--run", "nobody"], "no run with a checkpoint"),
        (["--checkpoint", "runs/one/checkpoints/step-4"], "no checkpoint there"),
        (["--checkpoint", "runs/one/checkpoints"], "no checkpoint there; give a directory like"),
        (["--data", "nowhere"], "nowhere"),
        (["--fraction", "0.1,2"], "between 0 and 1"),
        (["--fraction", "many"], "between 0 and 1"),
        (["--protocol", "mine"], "cached or paper"),
        (["--probe-epochs", "-1"], "not positive"),
        (["--probe-epochs", "3"], "--probe-epochs 3.0: is of no use to --probe linear, only to mlp"),
        (["--probe", "finetune", "--protocol", "paper"], "--protocol paper: is of no use to --probe finetune, only to linear"),
        (["--protocol", "paper", "--views", "2"], "--views 2: is of no use"),
        (["--probe", "linear,mlp", "--finetune-lr", "0.1"], "only to finetune"),
        (["--batch-size", "8"], "--batch-size 8: is of no use"),
        (["--curve", "--run", "nobody"], "metrics.jsonl"),
        (["--report", "--checkpoint", "runs/one/checkpoints/step-3"], "give --run instead"),
        (["--report", "--views", "2"], "--views: is of no use to --report; leave it out"),
        (["--curve", "--features", "out.npz"], "--features: is of no use to --curve"),
        (["--export", "e.onnx", "--segment"], "--segment: is of no use to --export"),
        (["--export", "e.onnx", "--probe", "mlp"], "--probe: is of no use to --export"),
        (["--export", "e.onnx", "--data", "photos"], "--data: is of no use to --export"),
        (["--compare", "runs/one", "runs/one", "--run", "one"], "--run: is of no use to --compare"),
    ],
)
def test_wrong_usage_is_one_line(here, arguments, says):
    text, code = call(*arguments)
    assert code == 2
    assert says in text


def test_more_gpus_than_there_are(here):
    text, code = call("--run", "one", gpus=64)
    assert code == 2
    assert "--gpus 0" in text


def test_without_any_run_it_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, code = call()
    assert code == 2
    assert "train.py" in text


def test_a_checkpoint_of_another_architecture(here):
    file = here / "checkpoints" / "step-3" / "config.json"
    config = json.loads(file.read_text())
    config["settings"]["encoder"]["depth"] += 1
    file.write_text(json.dumps(config))
    write_sums(file.parent)
    text, code = call("--probe", "knn")
    assert code == 1
    assert "step-3: its weights are not those of the encoder in its config.json" in text


def test_features_that_are_not_finite(here):
    saved = checkpoint.load(here / "checkpoints" / "step-3")
    name = next(name for name in saved.weights if name.startswith("encoder.to_1") and name.endswith("bias"))
    saved.weights[name][0] = float("nan")
    checkpoint.save(here / "checkpoints", 4, saved.weights, saved.trainer, saved.config)
    text, code = call("--probe", "knn", "--no-baselines")
    assert code == 1
    assert "step-4" in text
    assert "not finite" in text
    assert not list((here).glob("eval-*"))
    assert not (here / "features").exists()
    text, code = call("--features", "out.npz")
    assert code == 1
    assert "not finite" in text
    assert not list(Path().glob("*out.npz*"))


def test_a_disk_that_is_full_when_features_leave(here):
    with little_room():
        text, code = call("--features", "out.npz")
    assert (text, code) == ("out.npz: File too large; make room on that disk, or name a place on another one", 1)
    assert not list(Path().glob("*out.npz*"))


def test_brackets_in_names_are_printed(here, capsys):
    """Rich would take them for its own."""
    shutil.copytree(here, here.parent / "a [red] run")
    assert call("--export", "out [b]/e.safetensors", "--features", "f [x].npz") == ("", 0)
    assert call("--curve", "--run", "a [red] run") == call("--report", "--run", "a [red] run") == ("", 0)
    shown = " ".join(capsys.readouterr().out.split())
    for path in ("out [b]/e.safetensors", "f [x].npz", "runs/a [red] run/curve.png", "runs/a [red] run/report.html"):
        assert Path(path).exists()
        assert path in shown


def test_an_unwritable_output(here, monkeypatch):
    (here / "eval-linear.json").mkdir()
    text, code = call("--probe", "linear")
    assert code == 1
    assert "eval-linear.json: is a directory" in text
    (here / "baselines.json").mkdir()
    text, code = call("--probe", "knn")
    assert code == 1
    assert "baselines.json: is a directory" in text
    (here / "baselines.json").rmdir()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    text, code = call("--probe", "knn")
    assert code == 1
    assert "one: results cannot be written there (Read-only file system)" in text


def refuse(**_):
    raise OSError(30, "x")


def test_classes_without_training_images_are_told(here, tmp_path, capsys):
    out = photo_folder(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 1, "val/new": 2})
    length = ("--protocol", "paper", "--probe-epochs", "1")  # too short for a classifier to learn what it never saw
    assert call("--probe", "linear,mlp,knn,finetune", *length, "--data", out) == ("", 0)
    assert "of 3 classes with test images, 1 have none to train on (new)" in capsys.readouterr().err
    for probe in ("linear", "mlp", "knn", "finetune"):
        result = found(here, probe)
        assert result["per_class"][2] == 0
        assert not any(row[2] for row in result["confusion"])
        assert max(result[name] or 0 for name in ("top1", "top1_random_init", "top1_raw_pixels")) <= 3 / 5


@pytest.mark.parametrize(
    ("folders", "says"),
    [({"train/a": 6, "val/a": 2}, "1 class"), ({"a": 4, "b": 4}, "'val'")],
)
def test_data_that_cannot_be_probed(here, tmp_path, folders, says):
    text, code = call("--data", photo_folder(tmp_path, folders))
    assert code == 2
    assert says in text


def test_unlabelled_data_pretrains_and_probes_say_what_they_lack(photos, tmp_path):
    from tests.conftest import build

    out = tmp_path / "data" / "bare"
    build("folder", "--src", str(photos), "--out", str(out), "--unlabeled", "--workers", "1")
    run("train.py", "--data", "bare", *SMALL, "--run", "bare", "--steps", "2", cwd=tmp_path)
    result = run("eval.py", "--run", "bare", "--gpus", "0", cwd=tmp_path, code=2)
    assert "no labels" in result.stderr or "no split" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
