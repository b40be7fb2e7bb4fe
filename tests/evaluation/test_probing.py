"""What is trained, kept and written when: an evaluation seen from inside."""

import typer
from rich.console import Console

import amdim.eval as evaluate
from amdim.engine import checkpoint
from amdim.engine.distributed.dist_env import find_dist_env
from amdim.engine.distributed.rank_coordinator import RankCoordinator
from amdim.evaluation import run_probes
from amdim.evaluation.baseline_cache import BaselineCache
from amdim.model import Encoder
from amdim.pipeline.dataset import ShardedDataset
from tests.evaluating import call, found, photo_folder


def test_a_probe_that_fails_costs_none_that_is_done(here, monkeypatch):
    def fail(*_):
        raise RuntimeError("no neighbours today")

    monkeypatch.setitem(run_probes.TRAINERS, "knn", fail)
    said, code = call("--probe", "linear,knn")
    assert "no neighbours today" in said
    assert code == 1
    assert found(here)["top1_raw_pixels"] > 0
    assert not (here / "eval-knn.json").exists()


def test_what_takes_seconds_does_not_wait_for_what_takes_hours(here, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of luck after hours")

    monkeypatch.setattr(run_probes.Probing, "fine_tune", fail)
    said, code = call("--probe", "finetune,linear,knn", "--no-baselines")
    assert "out of luck after hours" in said
    assert code == 1
    assert found(here, "linear")["top1"] > 0
    assert found(here, "knn")["top1"] > 0
    assert not (here / "eval-finetune.json").exists()


def test_a_part_of_the_labels_that_fails_costs_no_result_with_all(here, monkeypatch):
    whole = run_probes.Probing.fine_tune

    def fail(self, task):
        if task.fraction != run_probes.WHOLE:
            raise RuntimeError("out of luck with half of them")
        whole(self, task)

    monkeypatch.setattr(run_probes.Probing, "fine_tune", fail)
    said, code = call("--probe", "finetune", "--fraction", "0.5", "--probe-epochs", "1", "--no-baselines")
    assert (code, "out of luck" in said) == (1, True)
    assert found(here, "finetune")["top1"] > 0
    assert found(here, "finetune")["fractions"] == {"0.5": None}


def test_a_part_of_the_labels_is_what_is_trained_on(here, monkeypatch):
    cached, stepped = [], []
    train_linear, views = run_probes.TRAINERS["linear"], run_probes.supervised.training_views
    monkeypatch.setitem(run_probes.TRAINERS, "linear", lambda train, *more: cached.append(train) or train_linear(train, *more))
    monkeypatch.setattr(run_probes.supervised, "training_views", lambda *how: stepped.append(int(how[2].sum())) or views(*how))
    options = ("--fraction", "0.5", "--probe-epochs", "1", "--no-baselines")
    assert call("--probe", "linear,finetune", *options) == ("", 0)
    assert [len(train.labels) for train in cached] == [96, 48]
    assert set(cached[1].rows.tolist()) < set(cached[0].rows.tolist())
    assert stepped == [96, 48, 96, 48]  # for a check beforehand, and for training


def test_ranks_that_see_different_checkpoints_are_told(here, monkeypatch):
    monkeypatch.setattr(run_probes, "from_all", lambda own: [own, (own[0] + 1, "others", *own[2:])])
    said, code = call("--probe", "knn")
    assert "do not see the same checkpoint (step 3 and 4)" in said
    assert code == 1


def test_what_decides_a_baseline(here, photo_set, tmp_path):
    """Another data set, probe, part, number of views, length, rate or batch is another number."""
    other = photo_folder(tmp_path, {"train/a": 40, "train/b": 40, "val/a": 2, "val/b": 2}, size=40)

    def key(data, probe, part=run_probes.WHOLE, *options):
        text = {"--fraction": part} if part != run_probes.WHOLE else {}
        arguments = [word for pair in ({"--probe": probe} | text).items() for word in pair] + list(map(str, options))
        context = typer.main.get_command(evaluate.app).make_context("eval.py", arguments)
        asked = context.params
        names = ("probes", "protocol", "views", "fraction", "probe_epochs", "finetune_lr", "baselines", "keep_features", "batch")
        plan = evaluate.make_plan(*(asked[name] for name in names))
        saved = checkpoint.load(here / "checkpoints" / "step-3")
        subject = evaluate.Subject(saved, here, ShardedDataset(data))
        alone = run_probes.Probing(subject, plan, find_dist_env(0), RankCoordinator(), Console(quiet=True))
        return alone.key(run_probes.Task("random_init", probe, part))

    keys = [
        key(photo_set, "linear"),
        key(other, "linear"),
        key(photo_set, "mlp"),
        key(photo_set, "linear", "0.5"),
        key(photo_set, "linear", run_probes.WHOLE, "--views", 1),
        key(photo_set, "mlp", run_probes.WHOLE, "--probe-epochs", 2),
        key(photo_set, "linear", run_probes.WHOLE, "--protocol", "paper"),
        key(photo_set, "finetune"),
        key(photo_set, "finetune", run_probes.WHOLE, "--finetune-lr", 1e-4),
        key(photo_set, "finetune", run_probes.WHOLE, "--batch-size", 8),
        key(photo_set, "finetune", run_probes.WHOLE, "--probe-epochs", 2),
    ]
    assert len(set(keys)) == len(keys)
    assert key(photo_set, "finetune") == key(photo_set, "finetune", run_probes.WHOLE, "--batch-size", 16)  # what it is anyway
    assert key(photo_set, "linear") == key(photo_set, "linear", run_probes.WHOLE, "--probe", "linear,mlp", "--probe-epochs", 2)


def test_baselines_of_another_evaluation_meanwhile_are_kept(here):
    one, other = BaselineCache(here), BaselineCache(here)
    one.put({"a": 0.5})
    other.put({"b": 0.25})
    other.put({})
    assert BaselineCache(here).found.items() >= {"a": 0.5, "b": 0.25}.items()


def test_a_baseline_that_fails_does_not_cost_the_encoders_result(here, monkeypatch, capsys):
    def fail(_):
        raise RuntimeError("no baseline today")

    monkeypatch.setattr(run_probes, "untrained", fail)
    said, code = call("--probe", "finetune", "--probe-epochs", "1", "--batch-size", "8")
    assert "no baseline today" in said
    assert code == 1
    assert 0 <= found(here, "finetune")["top1"] <= 1
    assert found(here, "finetune")["top1_random_init"] is None
    assert found(here, "finetune")["chosen"]["batch"] == 8
    assert f"{found(here, 'finetune')['top1']:.2%}" in capsys.readouterr().out  # the table, too
    assert list(here.glob("events*"))


def test_a_part_of_the_labels_that_is_too_small_is_told_before_any_work(here, monkeypatch):
    monkeypatch.setattr(run_probes, "extract", None)
    said, code = call("--probe", "finetune", "--fraction", "0.5,0.001")
    assert "2 labelled training images are too few for this; give a larger part of them" in said
    assert code == 2


def test_baselines_are_computed_once(here, monkeypatch):
    call("--probe", "knn")
    first = found(here, "knn")
    seen = []
    whole = run_probes.Probing.look
    monkeypatch.setattr(run_probes.Probing, "look", lambda self: seen.extend(self.missing) or whole(self))
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
    monkeypatch.setattr("amdim.evaluation.extract_features.sweep", None)  # no image is looked at
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
    seen.clear()
    assert call("--probe", "linear,mlp,knn", "--probe-epochs", "1", "--no-baselines") == ("", 0)
    assert sum(seen) == 96 + 24  # one pass for all three
