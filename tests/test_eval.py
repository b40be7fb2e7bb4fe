"""Evaluation through its command line."""

import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from eval import app
from tests.test_train import SMALL, run, train


@pytest.fixture(scope="module")
def trained(photo_set, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("trained")
    train(photo_set, "one", "--steps", "3", cwd=cwd)
    return cwd


def invoke(*arguments):
    """eval.py in this process."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_linear_and_knn_on_the_latest_run(trained, photo_set):
    result = run("eval.py", "--probe", "linear,knn", "--gpus", "0", cwd=trained)
    assert "24 test images" in result.stdout
    for probe in ("linear", "knn"):
        found = json.loads((trained / "runs" / "one" / f"eval-{probe}.json").read_text())
        assert found["probe"] == probe
        assert (found["step"], found["n_test"], found["data"]) == (3, 24, str(photo_set))
        assert all(0 <= found[key] <= 1 for key in ("top1", "top1_random_init", "top1_raw_pixels"))
        assert found["seconds"] > 0


def test_same_run_same_numbers(trained):
    def numbers():
        run("eval.py", "--probe", "linear", "--run", "one", "--gpus", "0", cwd=trained)
        found = json.loads((trained / "runs" / "one" / "eval-linear.json").read_text())
        return {key: value for key, value in found.items() if key != "seconds"}

    assert numbers() == numbers()


def test_the_curve_is_a_picture(trained):
    from PIL import Image

    run("eval.py", "--curve", "--run", "one", cwd=trained)
    with Image.open(trained / "runs" / "one" / "curve.png") as picture:
        assert picture.width > 800


@torch.no_grad()
def test_an_encoder_and_the_features_of_all_images_leave(trained, photo_set, monkeypatch):
    from model import load_encoder
    from pipeline import RECIPES, EvalLoader
    from shards.index import key, read_idx

    files = ("--export", "out/encoder.safetensors", "--features", "out/photos.npz")
    monkeypatch.chdir(trained)
    assert "out/encoder.safetensors.md" in invoke(*files, "--run", "one", "--gpus", "0")
    encoder = load_encoder(trained / "out" / "encoder.safetensors")
    own = load_encoder(trained / "runs" / "one" / "checkpoints" / "step-3")
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), own.parameters(), strict=True))
    found = np.load(trained / "out" / "photos.npz")
    loader = EvalLoader(photo_set, ["train", "val"], RECIPES["shapes32"])
    expected = torch.cat([encoder.represent(x) for x, _ in loader]).numpy()
    np.testing.assert_allclose(found["features"], expected, rtol=0.05, atol=0.05)  # bfloat16 where the CPU has it
    assert found["labels"].tolist() == loader.store.labels.tolist()
    indices = [loader.root.idx(shard) for shard in loader.store.shards]
    assert found["keys"].tolist() == [key(entry) for index in indices for entry in read_idx(index)]
    assert found["splits"].tolist() == ["train"] * 96 + ["val"] * 24
    assert found["classes"].tolist() == ["cats", "dogs"]


def test_runs_beside_one_another(trained, monkeypatch):
    shutil.copytree(trained / "runs" / "one", trained / "others" / "two", ignore=shutil.ignore_patterns("checkpoints"))
    result = {"probe": "linear", "data": "x", "step": 3, "n_test": 24, "top1": 0.625, "interval": [0.42, 0.79]}
    (trained / "others" / "two" / "eval-linear.json").write_text(json.dumps(result))
    monkeypatch.chdir(trained)
    table = invoke("--compare", "others/two", "runs/one")
    for words in ("demo", "photos", "loss 1→5", "62.50% (42.0–79.0)"):
        assert words in table
    from PIL import Image

    with Image.open(trained / "others" / "compare.png") as picture:
        assert picture.width > 800


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--probe", "quadratic"], "no such probe"),
        (["--run", "nobody"], "no run with a checkpoint"),
        (["--run", "one", "--data", "nowhere"], "nowhere"),
        (["--run", "one", "--gpus", "64"], "--gpus 0"),
        (["--curve", "--run", "nobody"], "metrics.jsonl"),
    ],
)
def test_wrong_usage_is_one_line(trained, arguments, says):
    result = run("eval.py", *arguments, cwd=trained, code=2)
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_without_any_run_it_says_how_to_get_one(tmp_path):
    assert "train.py" in run("eval.py", cwd=tmp_path, code=2).stderr


def test_unlabelled_data_pretrains_and_probes_say_what_they_lack(photos, tmp_path):
    from tests.conftest import build

    out = tmp_path / "data" / "bare"
    build("folder", "--src", str(photos), "--out", str(out), "--unlabeled", "--workers", "1")
    run("train.py", "--data", "bare", *SMALL, "--run", "bare", "--steps", "2", cwd=tmp_path)
    result = run("eval.py", "--run", "bare", "--gpus", "0", cwd=tmp_path, code=2)
    assert "no labels" in result.stderr or "no split" in result.stderr
