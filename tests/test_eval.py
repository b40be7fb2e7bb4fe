"""Evaluation through its command line."""

import json
import shutil

import numpy as np
import pytest
import torch

from amdim.evaluation.extract_features import key
from amdim.shards.manifest import load
from tests.evaluating import call, found, invoke, photo_folder
from tests.test_train import run


def test_three_probes_on_the_latest_run(here, photo_set, capsys):
    assert call("--probe", "linear,mlp,knn", "--fraction", "0.5", "--views", "1", "--probe-epochs", "4") == ("", 0)
    shown = capsys.readouterr().out
    assert "24 test images" in shown
    assert "95 % interval" in shown
    for probe in ("linear", "mlp", "knn"):
        one = found(here, probe)
        assert one["probe"] == probe
        assert (one["step"], one["n_test"], one["n_train"], one["data"]) == (3, 24, 96, str(photo_set))
        assert all(0 <= one[key] <= 1 for key in ("top1", "top1_random_init", "top1_raw_pixels"))
        assert one["top5"] is None
        assert one["classes"] == ["cats", "dogs"]
        assert one["interval"][0] < one["top1"] < one["interval"][1]
        assert sum(map(sum, one["confusion"])) == 24
        assert one["top1"] == pytest.approx(sum(one["confusion"][i][i] for i in range(2)) / 24)
        assert len(one["per_class"]) == 2
        assert one["fractions"].keys() == {"0.5"}
        assert one["seconds"] > 0
        assert one["test_images"] == key(*(shard.sha256 for shard in load(photo_set).splits["val"].shards))  # whatever the recipe
    assert found(here, "knn")["views"] == 0
    assert not (here / "features").exists()


def test_the_papers_protocol_and_fine_tuning(here):
    """Whole files of results; that they learn is tested beside their code."""
    assert call("--probe", "linear,mlp,finetune", "--protocol", "paper", "--probe-epochs", "1", "--fraction", "0.5") == ("", 0)
    for probe, way in (("linear", "paper"), ("mlp", "paper"), ("finetune", "finetune")):
        one = found(here, probe)
        assert (one["protocol"], one["n_test"]) == (way, 24)
        assert one["top1_random_init"] is not None
        assert (one["top1_raw_pixels"] is None) == (probe == "finetune")
        assert one["fractions"]["0.5"] is not None
        assert one["fractions_images"] == {"0.5": 48}
    assert found(here, "finetune")["chosen"] == {"epochs": 1, "lr": 1e-3, "batch": 16}


def test_the_board_shows_the_accuracies(here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert call("--probe", "knn", "--no-baselines") == ("", 0)
    (shown,) = EventAccumulator(str(here)).Reload().Scalars("eval/knn_top1")
    assert (shown.step, shown.value) == (3, pytest.approx(found(here, "knn")["top1"]))


def test_the_board_tells_other_data_apart(here, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    other = photo_folder(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 1})
    for data in ("photos", other):
        assert call("--probe", "knn", "--no-baselines", *(() if data == "photos" else ("--data", data))) == ("", 0)
    board = EventAccumulator(str(here)).Reload()
    assert len(board.Scalars("eval/knn_top1")) == len(board.Scalars("eval/knn_top1_on_set")) == 1


def test_a_third_split_is_tested_on_where_it_is_named(here, tmp_path, capsys):
    folders = {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2, "test/a": 3}
    data = photo_folder(tmp_path, folders)
    assert call("--probe", "knn", "--no-baselines", "--data", data) == ("", 0)
    assert call("--probe", "knn,finetune", "--no-baselines", "--data", data, "--split", "test", "--probe-epochs", "1") == ("", 0)
    shown = capsys.readouterr()
    assert "3 test images of split test" in shown.out
    assert "have none in test (b); ONE CLASS ALONE IS TESTED, a: such accuracies say nothing" in shown.err
    assert (found(here, "knn")["split"], found(here, "knn")["n_test"]) == ("val", 4)
    assert (found(here, "knn-test")["split"], found(here, "knn-test")["n_test"]) == ("test", 3)
    assert found(here, "finetune-test")["n_test"] == 3
    said, code = call("--probe", "knn", "--split", "test")
    assert (code, "has no split 'test', which a probe needs (train, val)" in said) == (2, True)


def test_same_run_same_numbers(here):
    def numbers():
        assert call("--run", "one") == ("", 0)
        return {key: value for key, value in found(here).items() if key != "seconds"}

    assert numbers() == numbers()


def test_an_older_checkpoint_of_another_place(here):
    saved = here / "checkpoints" / "step-3"
    assert call("--probe", "knn", "--checkpoint", saved, "--no-baselines") == ("", 0)
    moved = here.parent.parent / "step-3"
    shutil.copytree(saved, moved)
    text, code = call("--probe", "knn", "--checkpoint", moved)
    assert code == 2
    assert "--run" in text
    for other in ("one", "new"):
        assert call("--probe", "knn", "--checkpoint", moved, "--run", other, "--no-baselines") == ("", 0)
        assert (here.parent / other / "eval-knn.json").exists()


def test_results_go_into_the_run_wherever_its_checkpoint_is_named_from(here, monkeypatch):
    monkeypatch.chdir(here / "checkpoints")
    assert call("--probe", "knn", "--checkpoint", "step-3", "--no-baselines") == ("", 0)
    assert (here / "eval-knn.json").exists()
    assert {path.name for path in (here / "checkpoints").iterdir()} <= {"step-2", "step-3"}


def test_two_ranks_have_the_numbers_of_one(here):
    def numbers():
        return [{k: v for k, v in found(here, p).items() if k != "seconds"} for p in ("linear", "mlp", "knn")]

    arguments = ("--probe", "linear,mlp,knn", "--views", "2", "--probe-epochs", "2")
    assert call(*arguments) == ("", 0)
    alone = numbers()
    (here / "baselines.json").unlink()
    result = run("eval.py", *arguments, "--gpus", "0", "--procs", "2", cwd=here.parent.parent)
    assert result.stdout.count("test images") == 1
    assert numbers() == alone


@pytest.mark.long
def test_two_ranks_train_in_step_as_one_does(here):
    """Through the command; that the numbers are the same is tested beside their code, in float32."""
    arguments = ("--probe", "linear,mlp,finetune", "--protocol", "paper", "--probe-epochs", "1", "--fraction", "0.5")
    tops = []
    for ranks in ("1", "2"):
        run("eval.py", *arguments, "--no-baselines", "--run", "one", "--gpus", "0", "--procs", ranks, cwd=here.parent.parent)
        tops.append(
            [(found(here, probe)["top1"], found(here, probe)["fractions"]["0.5"]) for probe in ("linear", "mlp", "finetune")]
        )
    np.testing.assert_allclose(tops[1], tops[0], atol=4 / 24)  # near chance, where rounding moves some images


def test_the_curve_is_a_picture(here):
    from PIL import Image

    assert call("--curve", "--run", "one") == ("", 0)
    with Image.open(here / "curve.png") as picture:
        assert picture.width > 800


def test_the_curve_of_labels_that_come_now_and_then(here):
    (row,) = (json.loads(line) for line in (here / "metrics.jsonl").read_text().splitlines())
    rows = [row | {"step": step, "linear_top1": top1} for step, top1 in ((1, None), (2, 0.5), (3, None))]
    (here / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    assert call("--curve", "--run", "one") == ("", 0)
    assert (here / "curve.png").stat().st_size > 10_000


@torch.no_grad()
def test_an_encoder_and_the_features_of_all_images_leave(trained, photo_set, monkeypatch):
    from amdim.model import load_encoder
    from amdim.pipeline import RECIPES, EvalLoader
    from amdim.shards.index import key, read_idx

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
    for words in ("demo", "photos", "loss 1→5", "62.50% (42.0–79.0), on x"):
        assert words in table
    from PIL import Image

    with Image.open(trained / "others" / "compare.png") as picture:
        assert picture.width > 800
    assert invoke("--compare", "others/compare.png", "others/two", "runs/one") == table  # as a shell writes others/*


def test_another_set_with_other_classes_and_sizes_and_fewer_images_than_a_batch(here, photos, tmp_path):
    """Transfer: the classes are the other set's."""
    out = photo_folder(tmp_path, {"train/a": 5, "train/b": 4, "train/c": 4, "val/a": 1, "val/b": 1, "val/c": 2}, size=200)
    assert call("--probe", "linear,knn", "--data", out) == ("", 0)
    assert (found(here)["n_test"], found(here)["classes"]) == (4, ["a", "b", "c"])
    assert found(here)["data"] == str(out)
