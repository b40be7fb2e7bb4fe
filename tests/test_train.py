"""Training through its command line: same seed same loss, resumed equals never stopped, errors of one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amdim.engine import checkpoint
from tests.commands import write_sums
from tests.conftest import build
from tests.forked import run_forked
from tests.shards.conftest import build_quietly
from tests.shards.test_build import numbered

ROOT = Path(__file__).parent.parent
# A recipe with colour, in half precision.
SMALL = ("--gpus", "0", "--preset", "demo", "--config", str(ROOT / "tests" / "small.toml"), "--batch-size", "16", "--amp", "bf16")


def command(program, *arguments):
    return [sys.executable, str(ROOT / program), *map(str, arguments)]


def run(program, *arguments, cwd, code=0):
    result = run_forked(program, list(map(str, arguments)), cwd)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def train(data, name, *more, cwd, code=0):
    return run("train.py", "--data", data, *SMALL, "--run", name, *more, cwd=cwd, code=code)


def losses(run_directory):
    return [(row["step"], row["loss"]) for row in metrics(run_directory)]


def metrics(run_directory):
    return [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]


def final(run_directory):
    saved = checkpoint.latest(run_directory / "checkpoints")
    assert saved is not None
    return saved


def same_weights(a, b):
    one, other = final(a).weights, final(b).weights
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def undisturbed(photo_set, tmp_path_factory):
    """A run of 45 steps: seven and a half epochs, three log lines."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    train(photo_set, "whole", "--steps", "45", cwd=cwd)
    return cwd / "runs" / "whole"


def test_the_record_holds_what_it_promises(undisturbed):
    rows = metrics(undisturbed)
    assert [row["step"] for row in rows] == [20, 40, 45]
    promised = {"step", "epoch", "loss", "loss_1t5", "loss_1t7", "loss_5t5", "regulariser"}
    promised |= {"lr", "images_per_s", "data_s", "compute_s"}
    assert all(promised <= row.keys() for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert list(undisturbed.glob("events.out.tfevents*"))
    config = json.loads((undisturbed / "config.json").read_text())
    assert config["settings"]["batch"] == 16
    assert {p.name for p in final(undisturbed).path.iterdir()} == {
        "model.safetensors",
        "trainer.pt",
        "config.json",
        "checksums.json",
    }


def test_the_board_shows_pairs_beside_the_scalars(undisturbed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(undisturbed)).Reload()
    assert "loss" in board.Tags()["scalars"]
    (shown,) = board.Images("pairs of views")  # of the first log step
    assert (shown.step, shown.width, shown.height) == (20, 8 * 34 - 2, 2 * 32 + 2)


def test_same_seed_same_loss(undisturbed, photo_set, tmp_path):
    train(photo_set, "again", "--steps", "45", cwd=tmp_path)
    assert losses(tmp_path / "runs" / "again") == losses(undisturbed)
    assert same_weights(tmp_path / "runs" / "again", undisturbed)


def test_float32_too(photo_set, tmp_path):
    for name in ("one", "two"):
        train(photo_set, name, "--steps", "21", "--amp", "off", cwd=tmp_path)
    one, two = (tmp_path / "runs" / name for name in ("one", "two"))
    assert losses(one) == losses(two)
    assert same_weights(one, two)


def test_maps_computed_again_give_the_same_bits(undisturbed, photo_set, tmp_path):
    train(photo_set, "lean", "--steps", "45", "--checkpoint-activations", cwd=tmp_path)
    assert losses(tmp_path / "runs" / "lean") == losses(undisturbed)
    assert same_weights(tmp_path / "runs" / "lean", undisturbed)


def test_images_without_labels_are_trained_on_too(tmp_path):
    build_quietly(numbered(0, train=30, unlabeled=20, val=10), tmp_path / "set")
    said = run("train.py", "--data", tmp_path / "set", *SMALL, "--run", "all", "--steps", "1", cwd=tmp_path).stdout
    assert "50 images of train+unlabeled" in said


def test_another_seed_another_loss(undisturbed, photo_set, tmp_path):
    train(photo_set, "other", "--steps", "45", "--seed", "1", cwd=tmp_path)
    assert losses(tmp_path / "runs" / "other") != losses(undisturbed)
    assert final(tmp_path / "runs" / "other").trainer["loader"]["fingerprint"]["seed"] == 1


def test_resumed_from_the_middle_equals_undisturbed(undisturbed, photo_set, tmp_path):
    """The checkpoint of step 39 lies in mid-epoch, between two log lines; what came after it is thrown away."""
    train(photo_set, "cut", "--steps", "45", "--save-every", "13", cwd=tmp_path)
    cut = tmp_path / "runs" / "cut"
    assert [p.name for p in checkpoint.steps(cut / "checkpoints")] == ["step-45", "step-39"]
    remove(cut / "checkpoints" / "step-45")
    result = train(photo_set, "cut", "--steps", "45", cwd=tmp_path)
    assert "step-39" in result.stdout
    assert losses(cut) == losses(undisturbed)
    assert same_weights(cut, undisturbed)


@pytest.mark.long
def test_float16_goes_on_with_the_scale_that_it_had(photo_set, tmp_path):
    """And with the steps since it last fell, which it does in the first ones: those are skipped."""
    options = ("--steps", "16", "--save-every", "13", "--amp", "fp16")
    train(photo_set, "whole", *options, cwd=tmp_path)
    train(photo_set, "cut", *options, cwd=tmp_path)
    whole, cut = (tmp_path / "runs" / name for name in ("whole", "cut"))
    remove(cut / "checkpoints" / "step-16")
    assert "step-13" in train(photo_set, "cut", *options, cwd=tmp_path).stdout
    assert losses(cut) == losses(whole)
    assert same_weights(cut, whole)
    scaler = final(whole).trainer["scaler"]
    assert scaler["scale"] < 2**16
    assert 0 < scaler["_growth_tracker"] < 16
    assert final(cut).trainer["scaler"] == scaler
    assert metrics(whole)[-1]["loss_scale"] == scaler["scale"]


def remove(path):
    import shutil

    shutil.rmtree(path)


def test_a_finished_run_says_so(undisturbed, photo_set):
    result = train(photo_set, "whole", "--steps", "45", cwd=undisturbed.parent.parent)
    assert "is finished" in result.stdout


def test_a_damaged_record_is_no_obstacle(undisturbed, photo_set, tmp_path):
    """Half a line, as a power cut leaves, and lines that are no rows; and a broken run beside it."""
    train(photo_set, "cut", "--steps", "45", "--save-every", "13", cwd=tmp_path)
    cut = tmp_path / "runs" / "cut"
    remove(cut / "checkpoints" / "step-45")
    with (cut / "metrics.jsonl").open("ab") as file:
        file.write(b'5\n\xff\xfe\n{"step": 41, "lo')
    train(photo_set, "cut", "--steps", "45", cwd=tmp_path)
    assert losses(cut) == losses(undisturbed)


def test_a_broken_run_does_not_stop_another(photo_set, tmp_path):
    broken = tmp_path / "runs" / f"{photo_set.name}-demo-2020-01-01"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("garbage")
    result = run("train.py", "--data", photo_set, *SMALL, "--steps", "1", cwd=tmp_path)
    assert "done: runs/" in result.stdout
    assert str(broken.name) not in result.stdout
    assert (broken / "config.json").read_text() == "garbage"


def test_going_back_to_an_earlier_checkpoint_leaves_the_later_ones_behind(undisturbed, photo_set, tmp_path):
    train(photo_set, "back", "--steps", "45", "--save-every", "13", "--keep", "4", cwd=tmp_path)
    back = tmp_path / "runs" / "back"
    train(
        photo_set, "back", "--steps", "45", "--resume", "runs/back/checkpoints/step-45", cwd=tmp_path
    )  # finished: nothing to do
    again = train(photo_set, "back", "--steps", "45", "--resume", "runs/back/checkpoints/step-26", cwd=tmp_path)
    for step in (39, 45):
        assert f"step-{step}" in again.stderr
    assert {path.name for path in (back / "checkpoints").iterdir()} >= {"step-26", "left-step-39", "step-45"}
    assert same_weights(back, undisturbed)


def test_two_processes_do_not_share_a_run(photo_set, tmp_path):
    from amdim.fileio import locked

    with locked(tmp_path / "runs" / "busy", "held by the test"):
        result = train(photo_set, "busy", "--steps", "1", cwd=tmp_path, code=1)
    assert "another process trains here" in result.stderr


def test_another_machine_is_a_warning(photo_set, tmp_path):
    train(photo_set, "moved", "--steps", "4", "--save-every", "2", cwd=tmp_path)
    remove(tmp_path / "runs" / "moved" / "checkpoints" / "step-4")
    file = tmp_path / "runs" / "moved" / "checkpoints" / "step-2" / "trainer.pt"
    state = torch.load(file, weights_only=True)
    state["machine"]["threads"] = "64"
    torch.save(state, file)
    write_sums(file.parent)
    result = train(photo_set, "moved", "--steps", "4", cwd=tmp_path)
    assert "warning: threads was 64 and is 1" in result.stderr


@pytest.mark.long
def test_compiled_training_saves_what_an_eager_run_goes_on_from(photo_set, tmp_path):
    """Its short sibling is tests/engine/test_compiling.py: the compiler takes minutes."""
    run_compiled = ("--steps", "4", "--save-every", "2", "--compile")
    result = train(photo_set, "compiled", *run_compiled, "on", cwd=tmp_path)
    assert "torch.compile (asked for)" in " ".join(result.stdout.split())
    remove(tmp_path / "runs" / "compiled" / "checkpoints" / "step-4")
    result = train(photo_set, "compiled", *run_compiled, "off", cwd=tmp_path)
    assert "warning: compiled was True and is False" in result.stderr
    assert not any("_orig_mod" in name for name in final(tmp_path / "runs" / "compiled").weights)


def test_the_same_command_on_another_day_goes_on(photo_set, tmp_path):
    arguments = ("--data", photo_set, *SMALL, "--steps", "2")
    run("train.py", *arguments, cwd=tmp_path)
    (today,) = (tmp_path / "runs").iterdir()
    yesterday = today.rename(today.with_name(f"{today.name[:-10]}2020-01-01"))
    assert f"{yesterday.name} is finished" in run("train.py", *arguments, cwd=tmp_path).stdout
    run("train.py", *arguments, "--seed", "1", cwd=tmp_path)
    assert today.exists()


def test_changed_options_are_refused_by_name(undisturbed, photo_set):
    cwd = undisturbed.parent.parent
    result = train(photo_set, "whole", "--steps", "45", "--lr", "0.5", cwd=cwd, code=2)
    assert "other values of lr" in result.stderr
    result = train(photo_set, "whole", "--steps", "45", "--seed", "9", cwd=cwd, code=2)
    assert "other values of seed" in result.stderr
    result = train(photo_set, "whole", "--steps", "45", "--recipe", "gray32", cwd=cwd, code=2)
    assert "other values of views, recipe" in result.stderr
    result = train(photo_set, "whole", "--steps", "45", "--batch-size", "8", cwd=cwd, code=2)
    assert "other values of batch;" in result.stderr
    result = train(photo_set, "whole", "--steps", "45", "--preset", "laptop32", cwd=cwd, code=2)
    assert "other values of preset, " in result.stderr


def test_other_data_are_refused_by_that_name_whatever_their_size(photos, photo_set, tmp_path):
    """Though as many epochs of them are other steps."""
    train(photo_set, "one", "--epochs", "1", cwd=tmp_path)
    half = tmp_path / "half"
    build("folder", "--src", str(photos), "--out", str(half), "--val", "0.5", "--workers", "1")
    result = train(half, "one", "--epochs", "1", cwd=tmp_path, code=2)
    assert "other values of data, steps;" in result.stderr


def test_a_run_with_views_of_its_own_is_continued_and_probed_without_their_file(photo_set, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "shapes32"\nsize = 64\nmean = 0.4\nhue = 0\nflip_vertical = 0.5\n')
    train(photo_set, "own", "--steps", "4", "--recipe", file, cwd=tmp_path)
    config = json.loads((tmp_path / "runs/own/config.json").read_text())
    assert (config["settings"]["recipe"], config["settings"]["encoder"]["size"]) == ("own", 64)
    assert (config["views"]["mean"], config["views"]["flip_vertical"]) == ([0.4] * 3, 0.5)
    file.rename(tmp_path / "same.toml")
    again = train(photo_set, "own", "--steps", "4", "--recipe", tmp_path / "same.toml", cwd=tmp_path)
    assert "is finished" in again.stdout
    (tmp_path / "same.toml").write_text('base = "shapes32"\nsize = 64\n')
    changed = train(photo_set, "own", "--steps", "4", "--recipe", tmp_path / "same.toml", cwd=tmp_path, code=2)
    assert "other values of views;" in changed.stderr
    (tmp_path / "same.toml").unlink()
    repeated = run("train.py", "--config", "runs/own/config.json", "--gpus", "0", "--run", "own", cwd=tmp_path)
    assert "is finished" in repeated.stdout
    probed = run("eval.py", "--probe", "knn", "--run", "own", "--gpus", "0", cwd=tmp_path)
    assert "24 test images" in probed.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "nowhere"], "no such data set"),
        (["--data", "{set}", "--preset", "huge"], "no such preset"),
        (["--data", "{set}", "--recipe", "huge"], "--recipe huge: there is no such recipe"),
        (["--data", "{set}", "--recipe", "gone.toml"], "--recipe gone.toml: there is no such file"),
        (["--data", "{set}", "--gpus", "99"], "--gpus 0"),
        (["--data", "{set}", "--gpus", "-1"], "--gpus"),
        (["--data", "{set}", "--batch-size", "1000"], "96 samples"),
        (["--data", "{set}", "--batch-size", "0"], "not positive"),
        (["--data", "{set}", "--lr", "nan"], "--lr nan"),
        (["--data", "{set}", "--epochs", "inf"], "--epochs inf"),
        (["--data", "{set}", "--seed", "-1"], "--seed"),
        (["--data", "{set}", "--steps", "2", "--epochs", "3"], "give one"),
        (["--data", ""], "--data"),
        (["--data", "{set}", "--run", ""], "--run ''"),
        (["--data", "{set}", "--run", ".."], "--run '..'"),
        (["--data", "{set}", "--amp", "fp8"], "--amp fp8"),
        (["--data", "{set}", "--compile", "always"], "--compile always"),
        (["--data", "{set}", "--save-every", "soon"], "--save-every soon"),
        (["--data", "{set}", "--resume", "/nowhere"], "--resume /nowhere"),
        (["--data", "{set}", "--steps", "many"], "--steps"),
        (["--data", "{set}", "--steps", "-1"], "not positive"),
        (["--no-such-option"], "--no-such-option"),
        (["--data", "{set}", "--mixture-alpha", "0.1"], "--mixture-alpha: is of mixture features"),
        (["--data", "{set}", "--run", "{set}/dataset.json/run"], "Not a directory"),
    ],
)
def test_wrong_usage_is_one_line(photo_set, tmp_path, arguments, says):
    filled = [argument.replace("{set}", str(photo_set)) for argument in arguments]
    if "--gpus" not in filled:
        filled += ["--gpus", "0"]
    result = run_forked("train.py", [*filled, "--quiet"], tmp_path)
    assert result.returncode == (1 if says == "Not a directory" else 2), result.stderr
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_with_no_arguments_it_says_how_to_get_imagenet(tmp_path):
    """In a process that is started as a user starts it."""
    result = subprocess.run(command("train.py"), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert result.returncode == 2
    assert "data/imagenet" in result.stderr
    assert "make shards" in result.stderr


def test_a_small_data_set_trains_with_a_preset_made_for_a_large_one(photo_set, tmp_path):
    result = run("train.py", "--data", photo_set, "--gpus", "0", "--preset", "fashion-mnist", "--steps", "1", cwd=tmp_path)
    assert "1 steps of 48 images" in result.stdout


def test_quiet_says_nothing_where_nothing_is_wrong(photo_set, tmp_path):
    result = train(photo_set, "quiet", "--steps", "2", "--quiet", cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("", "")
    assert final(tmp_path / "runs" / "quiet").trainer["step"] == 2


def test_presets_are_listed(tmp_path):
    result = run("train.py", "--presets", cwd=tmp_path)
    assert "imagenet-small" in result.stdout
    assert "sqrt(N / batch)" in " ".join(result.stdout.split())
