"""--config and --dry-run through the command line."""

import json

from tests.test_train import SMALL, final, run, same_weights, train


def test_a_config_json_repeats_its_run(photo_set, tmp_path):
    """To the bit, though half of what it was made with is on no preset's list."""
    file = tmp_path / "mine.toml"
    file.write_text('seed = 5\nsteps = 3\namp = "bf16"\nbatch = 12\nbeta1 = 0.7\nclip = 15\nlr = 0.1\n[encoder]\nwidth = 16\n')
    options = ("--data", photo_set, "--gpus", "0", "--preset", "demo")
    run("train.py", *options, "--config", file, "--lr", "1e-3", "--run", "one", cwd=tmp_path)
    config = tmp_path / "runs" / "one" / "config.json"
    run("train.py", "--config", config, "--gpus", "0", "--run", "two", cwd=tmp_path)
    fields = json.loads(config.read_text())
    assert fields == json.loads((tmp_path / "runs" / "two" / "config.json").read_text())
    settings = fields["settings"]
    assert (settings["lr"], settings["batch"], settings["beta1"], settings["encoder"]["width"]) == (1e-3, 12, 0.7, 16)
    assert (fields["steps"], fields["seed"]) == (3, 5)
    assert same_weights(tmp_path / "runs" / "one", tmp_path / "runs" / "two")


def test_a_config_json_of_another_machine_says_what_differs(photo_set, tmp_path):
    train(photo_set, "one", "--steps", "1", cwd=tmp_path)
    config = tmp_path / "runs" / "one" / "config.json"
    fields = json.loads(config.read_text())
    fields["machine"]["precision"] = "float16"
    config.write_text(json.dumps(fields))
    result = run("train.py", "--config", config, "--gpus", "0", "--run", "two", "--dry-run", cwd=tmp_path)
    assert "warning: precision was float16 and is bfloat16: numbers will not be the same" in result.stderr
    assert result.stderr.count("warning") == 1


def test_an_option_goes_before_the_file(photo_set, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("seed = 5\nsteps = 30\n")
    train(photo_set, "one", "--config", file, "--seed", "6", "--epochs", "0.2", cwd=tmp_path)
    config = final(tmp_path / "runs" / "one").config
    assert (config["seed"], config["steps"]) == (6, 1)


def test_a_wrong_field_is_one_line(photo_set, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("warm_up = 5\n")
    result = train(photo_set, "one", "--config", file, cwd=tmp_path, code=2)
    assert result.stderr.splitlines() == [f"train.py: {file}: warm_up: there is no such field; is it warmup?"]


def test_a_dry_run_tells_the_cost_and_leaves_nothing(photo_set, tmp_path):
    arguments = ("--data", photo_set, *SMALL, "--steps", "1000", "--dry-run")
    for more in ((), ("--procs", "2")):
        out = run("train.py", *arguments, *more, cwd=tmp_path).stdout
        assert "images/s" in out
        assert "memory a process" in out
        assert "views alone" in out
        assert "1,000 steps of 16 images would take 0:" in out
        assert list(tmp_path.iterdir()) == []
