"""Evaluation through its command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

import eval as evaluate
from engine import checkpoint
from engine.launch import place
from engine.peers import Peers
from errors import explain
from evaluation import probing
from evaluation.baselines import Kept
from model import Encoder
from pipeline.shard_set import ShardSet
from tests.commands import little_room, write_sums
from tests.test_train import SMALL, run, train


@pytest.fixture(scope="module")
def trained(photo_set, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("trained")
    train(photo_set, "one", "--steps", "3", cwd=cwd)
    return cwd


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A copy of the run of three steps, in the working directory."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    for events in (tmp_path / "runs" / "one").glob("events*"):
        events.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "one"


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


def test_a_probe_that_fails_costs_none_that_is_done(here, monkeypatch):
    def fail(*_):
        raise RuntimeError("no neighbours today")

    monkeypatch.setitem(probing.TRAINERS, "knn", fail)
    said, code = call("--probe", "linear,knn")
    assert "no neighbours today" in said
    assert code == 1
    assert found(here)["top1_raw_pixels"] > 0
    assert not (here / "eval-knn.json").exists()


def test_what_takes_seconds_does_not_wait_for_what_takes_hours(here, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of luck after hours")

    monkeypatch.setattr(probing.Probing, "fine_tune", fail)
    said, code = call("--probe", "finetune,linear,knn", "--no-baselines")
    assert "out of luck after hours" in said
    assert code == 1
    assert found(here, "linear")["top1"] > 0
    assert found(here, "knn")["top1"] > 0
    assert not (here / "eval-finetune.json").exists()


def test_a_part_of_the_labels_that_fails_costs_no_result_with_all(here, monkeypatch):
    whole = probing.Probing.fine_tune

    def fail(self, task):
        if task.fraction != probing.WHOLE:
            raise RuntimeError("out of luck with half of them")
        whole(self, task)

    monkeypatch.setattr(probing.Probing, "fine_tune", fail)
    said, code = call("--probe", "finetune", "--fraction", "0.5", "--probe-epochs", "1", "--no-baselines")
    assert (code, "out of luck" in said) == (1, True)
    assert found(here, "finetune")["top1"] > 0
    assert found(here, "finetune")["fractions"] == {"0.5": None}


def test_a_part_of_the_labels_is_what_is_trained_on(here, monkeypatch):
    cached, stepped = [], []
    train_linear, views = probing.TRAINERS["linear"], probing.in_step.training_views
    monkeypatch.setitem(probing.TRAINERS, "linear", lambda train, *more: cached.append(train) or train_linear(train, *more))
    monkeypatch.setattr(probing.in_step, "training_views", lambda *how: stepped.append(int(how[2].sum())) or views(*how))
    options = ("--fraction", "0.5", "--probe-epochs", "1", "--no-baselines")
    assert call("--probe", "linear,finetune", *options) == ("", 0)
    assert [len(train.labels) for train in cached] == [96, 48]
    assert set(cached[1].rows.tolist()) < set(cached[0].rows.tolist())
    assert stepped == [96, 48, 96, 48]  # for a check beforehand, and for training


def test_ranks_that_see_different_checkpoints_are_told(here, monkeypatch):
    monkeypatch.setattr(probing, "from_all", lambda own: [own, own + 1 if isinstance(own, int) else ("others", *own[1:])])
    said, code = call("--probe", "knn")
    assert "do not see the same checkpoint (step 3 and 4)" in said
    assert code == 1


def test_what_decides_a_baseline(here, photo_set, tmp_path):
    """Another data set, probe, part, number of views, length, rate or batch is another number."""
    other = photo_folder(tmp_path, {"train/a": 40, "train/b": 40, "val/a": 2, "val/b": 2}, size=40)

    def key(data, probe, part=probing.WHOLE, *options):
        text = {"--fraction": part} if part != probing.WHOLE else {}
        arguments = [word for pair in ({"--probe": probe} | text).items() for word in pair] + list(map(str, options))
        context = typer.main.get_command(evaluate.app).make_context("eval.py", arguments)
        asked = context.params
        names = ("probes", "protocol", "views", "fraction", "probe_epochs", "finetune_lr", "baselines", "keep_features", "batch")
        plan = evaluate.make_plan(*(asked[name] for name in names))
        saved = checkpoint.load(here / "checkpoints" / "step-3")
        subject = evaluate.Subject(saved, here, ShardSet(data))
        alone = probing.Probing(subject, plan, place(0), Peers(), Console(quiet=True))
        return alone.key(probing.Task("random_init", probe, part))

    keys = [
        key(photo_set, "linear"),
        key(other, "linear"),
        key(photo_set, "mlp"),
        key(photo_set, "linear", "0.5"),
        key(photo_set, "linear", probing.WHOLE, "--views", 1),
        key(photo_set, "mlp", probing.WHOLE, "--probe-epochs", 2),
        key(photo_set, "linear", probing.WHOLE, "--protocol", "paper"),
        key(photo_set, "finetune"),
        key(photo_set, "finetune", probing.WHOLE, "--finetune-lr", 1e-4),
        key(photo_set, "finetune", probing.WHOLE, "--batch-size", 8),
        key(photo_set, "finetune", probing.WHOLE, "--probe-epochs", 2),
    ]
    assert len(set(keys)) == len(keys)
    assert key(photo_set, "finetune") == key(photo_set, "finetune", probing.WHOLE, "--batch-size", 16)  # what it is anyway
    assert key(photo_set, "linear") == key(photo_set, "linear", probing.WHOLE, "--probe", "linear,mlp", "--probe-epochs", 2)


def test_baselines_of_another_evaluation_meanwhile_are_kept(here):
    one, other = Kept(here), Kept(here)
    one.put({"a": 0.5})
    other.put({"b": 0.25})
    other.put({})
    assert Kept(here).found.items() >= {"a": 0.5, "b": 0.25}.items()


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


def test_a_baseline_that_fails_does_not_cost_the_encoders_result(here, monkeypatch):
    def fail(_):
        raise RuntimeError("no baseline today")

    monkeypatch.setattr(probing, "untrained", fail)
    said, code = call("--probe", "finetune", "--probe-epochs", "1", "--batch-size", "8")
    assert "no baseline today" in said
    assert code == 1
    assert 0 <= found(here, "finetune")["top1"] <= 1
    assert found(here, "finetune")["top1_random_init"] is None
    assert found(here, "finetune")["chosen"]["batch"] == 8


def test_a_part_of_the_labels_that_is_too_small_is_told_before_any_work(here, monkeypatch):
    monkeypatch.setattr(probing, "extract", None)
    said, code = call("--probe", "finetune", "--fraction", "0.5,0.001")
    assert "2 labelled training images are too few for this; give a larger part of them" in said
    assert code == 2


def test_the_board_shows_the_accuracies(here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert call("--probe", "knn", "--no-baselines") == ("", 0)
    (shown,) = EventAccumulator(str(here)).Reload().Scalars("eval/knn_top1")
    assert (shown.step, shown.value) == (3, pytest.approx(found(here, "knn")["top1"]))


def test_same_run_same_numbers(here):
    def numbers():
        assert call("--run", "one") == ("", 0)
        return {key: value for key, value in found(here).items() if key != "seconds"}

    assert numbers() == numbers()


def test_baselines_are_computed_once(here, monkeypatch):
    call("--probe", "knn")
    first = found(here, "knn")
    seen = []
    whole = probing.Probing.look
    monkeypatch.setattr(probing.Probing, "look", lambda self: seen.extend(self.missing) or whole(self))
    call("--probe", "knn")
    assert [task.contender for task in seen] == ["encoder"]
    assert found(here, "knn")["top1_raw_pixels"] == first["top1_raw_pixels"]
    call("--probe", "knn", "--no-baselines")
    assert (found(here, "knn")["top1_raw_pixels"], found(here, "knn")["top1_random_init"]) == (None, None)
    seen.clear()
    (here / "baselines.json").write_text("[broken")
    call("--probe", "knn")
    assert len(seen) == 3


def test_kept_features_serve_again_and_others_do_not(here, monkeypatch):
    call("--probe", "knn", "--keep-features", "--no-baselines")
    files = set((here / "features").iterdir())
    assert {path.name[:5] for path in files} == {"train", "val-e"}
    first = found(here, "knn")
    monkeypatch.setattr("evaluation.extract.sweep", None)  # no image is looked at
    assert call("--probe", "knn", "--no-baselines") == ("", 0)
    assert found(here, "knn")["top1"] == first["top1"]
    assert set((here / "features").iterdir()) == files
    monkeypatch.undo()
    monkeypatch.chdir(here.parent.parent)
    call("--probe", "linear", "--views", "1", "--no-baselines")  # of other views: made, and removed
    assert set((here / "features").iterdir()) == files
    for path in files:
        path.write_bytes(path.read_bytes()[:-100])  # as a copy that was broken off
    assert call("--probe", "knn", "--keep-features", "--no-baselines") == ("", 0)
    assert found(here, "knn")["top1"] == first["top1"]


def test_no_view_is_encoded_in_vain(here, monkeypatch):
    seen, whole = [], Encoder.represent
    monkeypatch.setattr(Encoder, "represent", lambda self, x: seen.append(len(x)) or whole(self, x))
    assert call("--probe", "linear", "--views", "1", "--no-baselines") == ("", 0)
    assert sum(seen) == 2 * 96 + 24


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
    for words in ("demo", "photos", "loss 1→5", "62.50% (42.0–79.0), on x"):
        assert words in table
    from PIL import Image

    with Image.open(trained / "others" / "compare.png") as picture:
        assert picture.width > 800
    assert invoke("--compare", "others/compare.png", "others/two", "runs/one") == table  # as a shell writes others/*


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--probe", "quadratic"], "no such probe"),
        (["--run", "nobody"], "no run with a checkpoint"),
        (["--checkpoint", "runs/one/checkpoints/step-4"], "no checkpoint there"),
        (["--data", "nowhere"], "nowhere"),
        (["--fraction", "0.1,2"], "between 0 and 1"),
        (["--fraction", "many"], "between 0 and 1"),
        (["--protocol", "mine"], "cached or paper"),
        (["--probe-epochs", "-1"], "not positive"),
        (["--probe-epochs", "3"], "--probe-epochs 3.0: is of no use to --probe linear, only to mlp"),
        (["--protocol", "paper", "--views", "2"], "--views 2: is of no use"),
        (["--probe", "linear,mlp", "--finetune-lr", "0.1"], "only to finetune"),
        (["--batch-size", "8"], "--batch-size 8: is of no use"),
        (["--curve", "--run", "nobody"], "metrics.jsonl"),
        (["--report", "--checkpoint", "runs/one/checkpoints/step-3"], "give --run instead"),
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
    assert (text, code) == ("out.npz: File too large", 1)
    assert not list(Path().glob("*out.npz*"))


def test_an_unwritable_output(here, monkeypatch):
    (here / "eval-linear.json").mkdir()
    text, code = call("--probe", "linear")
    assert code == 1
    assert "eval-linear.json: is a directory" in text
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    text, code = call("--probe", "knn")
    assert code == 1
    assert "one: results cannot be written there (Read-only file system)" in text


def refuse(**_):
    raise OSError(30, "x")


def test_another_set_with_other_classes_and_sizes_and_fewer_images_than_a_batch(here, photos, tmp_path):
    """Transfer: the classes are the other set's."""
    out = photo_folder(tmp_path, {"train/a": 5, "train/b": 4, "train/c": 4, "val/a": 1, "val/b": 1, "val/c": 2}, size=200)
    assert call("--probe", "linear,knn", "--data", out) == ("", 0)
    assert (found(here)["n_test"], found(here)["classes"]) == (4, ["a", "b", "c"])
    assert found(here)["data"] == str(out)


def test_classes_without_training_images_are_told(here, tmp_path, capsys):
    out = photo_folder(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 1, "val/new": 2})
    assert call("--probe", "knn", "--data", out, "--no-baselines") == ("", 0)
    assert "of 3 classes with test images, 1 have none to train on (new)" in capsys.readouterr().err
    assert found(here, "knn")["per_class"][2] == 0


@pytest.mark.parametrize(
    ("folders", "says"),
    [({"train/a": 6, "val/a": 2}, "1 class"), ({"a": 4, "b": 4}, "'val'")],
)
def test_data_that_cannot_be_probed(here, tmp_path, folders, says):
    text, code = call("--data", photo_folder(tmp_path, folders))
    assert code == 2
    assert says in text


def photo_folder(tmp_path, folders, size=40):
    """A shard set of noise: so many images in each folder."""
    import numpy as np
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


def test_unlabelled_data_pretrains_and_probes_say_what_they_lack(photos, tmp_path):
    from tests.conftest import build

    out = tmp_path / "data" / "bare"
    build("folder", "--src", str(photos), "--out", str(out), "--unlabeled", "--workers", "1")
    run("train.py", "--data", "bare", *SMALL, "--run", "bare", "--steps", "2", cwd=tmp_path)
    result = run("eval.py", "--run", "bare", "--gpus", "0", cwd=tmp_path, code=2)
    assert "no labels" in result.stderr or "no split" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
