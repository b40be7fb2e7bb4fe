"""A checkpoint of the original becomes a run, which is probed and trained from; through the command lines."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from amdim.engine import checkpoint, import_amdim_public
from amdim.errors import UserError
from tests.original import Original, save
from tests.test_train import SMALL, final, run, same_weights, train

SMALL_ENCODER = {"ndf": 8, "n_rkhs": 64, "n_depth": 2, "encoder_size": 32, "use_bn": True}  # that of tests/small.toml


@pytest.fixture(scope="module")
def original():
    return Original(**SMALL_ENCODER, n_classes=2, tclip=18.0)


@pytest.fixture(scope="module")
def place(original, tmp_path_factory):
    """A directory with cpt.pth, as of 2019, and runs/imported made of it."""
    cwd = tmp_path_factory.mktemp("import")
    save(original.checkpoint(), cwd / "cpt.pth")
    result = run("eval.py", "--import-amdim-public", "cpt.pth", "--out", "runs/imported", cwd=cwd)
    assert "32 px, w 8, R 64, d 2, batch normalisation inside" in result.stdout
    assert "7 epochs, 5,000 updates" in result.stdout
    assert "python eval.py --probe linear --run runs/imported --data NAME" in result.stdout
    assert result.stderr == ""
    return cwd


def imported(place):
    return place / "runs" / "imported"


def test_the_run_is_whole(place, original):
    saved = final(imported(place))
    assert saved.path.name == "step-5000"
    assert {path.name for path in saved.path.iterdir()} == {"model.safetensors", "trainer.pt", "config.json", "checksums.json"}
    assert json.loads((imported(place) / "config.json").read_text()) == saved.config
    assert (saved.config["preset"], saved.config["settings"]["recipe"]) == ("amdim-public", "cifar32")
    assert saved.config["settings"]["clip"] == 18.0
    assert torch.equal(saved.weights["encoder.to_7.0.0.weight"], original.encoder.module.layer_list[0].conv.weight)
    assert [path.name for path in (place / "runs").iterdir()] == ["imported"]


def test_probes_see_the_originals_features(place, photo_set, original):
    """What the probes are given is r1 of the original, on the same views."""
    from amdim.engine.precision import Precision
    from amdim.evaluation.feature_extractors import trained
    from amdim.evaluation.features import collect, represent
    from amdim.pipeline import RECIPES, EvalLoader

    encoder = trained(final(imported(place)))
    function = represent(encoder, Precision(None, "exact"), torch.device("cpu"))
    loader = EvalLoader(photo_set, ["val"], RECIPES["cifar32"], device=torch.device("cpu"))
    ours, theirs = (collect(loader, each) for each in (function, lambda x: original(x)[0].flatten(1)))
    torch.testing.assert_close(ours.x, theirs.x, rtol=1e-5, atol=1e-5)


def test_probing_it(place, photo_set):
    result = run("eval.py", "--probe", "linear,knn", "--run", "imported", "--data", photo_set, "--gpus", "0", cwd=place)
    assert "step 5,000" in result.stdout
    assert json.loads((imported(place) / "eval-linear.json").read_text())["n_test"] == 24


def test_training_from_it(place, photo_set, original):
    """At a learning rate of nothing, the weights stay the original's; batch statistics move."""
    result = train(photo_set, "on", "--steps", "2", "--init", "runs/imported", "--lr", "1e-30", cwd=place)
    assert "starting from the weights of runs/imported/checkpoints/step-5000" in result.stdout
    assert "was trained with scores clipped at 18, here 20" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    before, after = final(imported(place)).weights, final(place / "runs" / "on").weights
    assert before.keys() == after.keys()
    for name in before:
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(before[name], after[name]), name
    assert after["encoder.to_1.2.num_batches_tracked"] == 1234 + 4
    assert torch.equal(after["linear.weight"], original.evaluator.block_glb_lin.block_forward[2].weight)
    (source,) = (place / "runs" / "imported" / "checkpoints").iterdir()
    assert json.loads((place / "runs" / "on" / "config.json").read_text())["init"] == f"runs/imported/checkpoints/{source.name}"


def test_the_same_command_goes_on_without_the_source(place, photo_set, tmp_path, monkeypatch):
    """Stopped and started again equals never stopped, and what it started from may be gone by then."""
    shutil.copytree(imported(place), tmp_path / "runs" / "imported")
    options = ("--steps", "6", "--save-every", "3", "--init", "imported")
    train(photo_set, "cut", *options, cwd=tmp_path)
    cut = tmp_path / "runs" / "cut"
    shutil.copytree(cut, tmp_path / "runs" / "whole")
    shutil.rmtree(cut / "checkpoints" / "step-6")
    shutil.rmtree(tmp_path / "runs" / "imported")
    result = train(photo_set, "cut", *options, cwd=tmp_path)
    assert "continuing runs/cut/checkpoints/step-3" in result.stdout
    assert "starting from" not in result.stdout
    assert same_weights(cut, tmp_path / "runs" / "whole")
    monkeypatch.chdir(tmp_path)
    assert "other values of init" in refusal("train", "--data", photo_set, *SMALL, "--run", "cut", *options[:4])


def test_our_own_checkpoint_directory_and_classifiers_that_do_not_fit(place, photo_set, tmp_path):
    """Of a model for other classes, the encoder is taken and the classifiers are not."""
    other = Original(**SMALL_ENCODER, n_classes=5)
    save(other.checkpoint(step=3), tmp_path / "cpt.pth", legacy=False)
    import_amdim_public.import_run(tmp_path / "cpt.pth", tmp_path / "runs" / "five")
    source = "runs/five/checkpoints/step-3"
    result = train(photo_set, "on", "--steps", "1", "--init", source, "--lr", "1e-30", cwd=tmp_path)
    assert "has no linear and no mlp of the shapes needed here" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    weights = final(tmp_path / "runs" / "on").weights
    assert torch.equal(weights["encoder.head_7.conv2.weight"], other.encoder.module.rkhs_block_7.conv2.weight)
    assert weights["linear.weight"].shape == (2, 64)


def refusal(program, *arguments, code=2):
    """The message with which a command ends, run in this process, which takes a tenth of the time."""
    import importlib

    app = importlib.import_module(program).app
    error = CliRunner().invoke(app, [str(argument) for argument in arguments]).exception
    assert isinstance(error, UserError), error
    assert error.exit_code == code
    assert len(str(error).splitlines()) == 1
    return str(error)


def refused_training(data, name, *more):
    return refusal("train", "--data", data, *SMALL, "--run", name, "--steps", "1", *more)


def test_another_encoder_is_refused_by_its_fields(photo_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Original(encoder_size=64, ndf=4).checkpoint(), tmp_path / "cpt.pth")
    import_amdim_public.import_run(tmp_path / "cpt.pth", tmp_path / "runs" / "other")
    why = refused_training(photo_set, "on", "--init", "other")
    assert "size 64, here 32; width 4, here 8; embedding 40, here 64; use_bn False, here True" in why
    assert "a --config file with [views] size = 64 and [encoder] width = 4, embedding = 40" in why
    assert not (tmp_path / "runs" / "on").exists()


def test_weights_alone_are_nothing_to_resume(place, photo_set, monkeypatch):
    monkeypatch.chdir(place)
    saved = "runs/imported/checkpoints/step-5000"
    assert f"--init {saved}" in refused_training(photo_set, "imported")
    assert f"--init {saved}" in refused_training(photo_set, "new", "--resume", saved)


@pytest.mark.parametrize(
    ("init", "says"),
    [
        ("", "--init ''"),
        ("nobody", "runs/nobody: no run with a checkpoint"),
        ("runs/imported/checkpoints/step-7", "--init runs/imported/checkpoints/step-7: no checkpoint there"),
        ("./cpt.pth", "python eval.py --import-amdim-public ./cpt.pth"),
    ],
)
def test_wrong_init_is_one_line(place, photo_set, monkeypatch, init, says):
    monkeypatch.chdir(place)
    assert says in refused_training(photo_set, "wrong", "--init", init)
    assert not (place / "runs" / "wrong").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--import-amdim-public", "nothing.pth", "--out", "new"], 2, "nothing.pth: no such file"),
        (["--import-amdim-public", "cpt.pth"], 2, "--out runs/imported"),
        (["--import-amdim-public", "cpt.pth", "--out", "imported"], 2, "runs/imported: exists already"),
        (["--import-amdim-public", "cpt.pth", "--out", "./cpt.pth"], 2, "exists already"),
        (["--import-amdim-public", "cpt.pth", "--out", ""], 2, "--out ''"),
        (["--import-amdim-public", "half.pth", "--out", "new"], 1, "half.pth: is truncated"),
        (["--import-amdim-public", "runs/imported/config.json", "--out", "new"], 1, "is something else"),
        (["--out", "new"], 2, "--import-amdim-public"),
        (["--run", "imported", "--gpus", "0"], 2, "--data"),
    ],
)
def test_wrong_imports_are_one_line(place, monkeypatch, arguments, code, says):
    monkeypatch.chdir(place)
    whole = (place / "cpt.pth").read_bytes()
    (place / "half.pth").write_bytes(whole[: len(whole) // 2])
    before = {path: path.stat().st_mtime_ns for path in imported(place).rglob("*")}
    assert says in refusal("eval", *arguments, code=code)
    assert not (place / "runs" / "new").exists()
    assert {path: path.stat().st_mtime_ns for path in imported(place).rglob("*")} == before


def test_a_damaged_file_is_one_line_in_the_terminal(place):
    (place / "half.pth").write_bytes((place / "cpt.pth").read_bytes()[:100_000])
    result = run("eval.py", "--import-amdim-public", "half.pth", "--out", "new", cwd=place, code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("eval.py: half.pth: is truncated")
    assert len(result.stderr.splitlines()) == 1


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    save(Original().checkpoint(), tmp_path / "cpt.pth")
    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(Exception, match="No space left"):
        import_amdim_public.import_run(tmp_path / "cpt.pth", tmp_path / "runs" / "new")
    assert not any((tmp_path / "runs").iterdir())
    monkeypatch.undo()
    import_amdim_public.import_run(tmp_path / "cpt.pth", tmp_path / "runs" / "new")
    assert final(tmp_path / "runs" / "new").path.name == "step-5000"
