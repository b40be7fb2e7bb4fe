"""Files of settings: every field of a preset, types checked, errors that name the field."""

import json
from dataclasses import asdict, replace

import pytest

from amdim.engine.config_file import read
from amdim.engine.presets import PRESETS, configure
from amdim.errors import UsageError
from amdim.model.encoder import EncoderConfig


def write(path, text):
    path.write_text(text)
    return path


def test_toml(tmp_path):
    text = 'data = "mine"\nsteps = 7\nlr = 1\nmilestones = [0.5, 0.8]\nrecipe = "gray32"\n'
    text += "[encoder]\nwidth = 48\nuse_bn = false\n[views]\nhue = 0\n"
    run, preset, views, _ = read(write(tmp_path / "file.toml", text))
    assert views == {"hue": 0}
    assert run == {"data": "mine", "steps": 7}
    settings = configure("demo", 10**6, {"epochs": 3.0, "lr": None}, preset)
    expected = replace(PRESETS["demo"], lr=1.0, milestones=(0.5, 0.8), recipe="gray32", epochs=3.0)
    assert settings == replace(expected, encoder=EncoderConfig(32, 48, 256, 2, False))


def test_an_option_goes_before_the_file_and_the_file_before_the_preset(tmp_path):
    _, preset, *_ = read(write(tmp_path / "file.toml", "lr = 0.5\nbatch = 64"))
    settings = configure("demo", 10**6, {"lr": 0.25}, preset)
    assert (settings.lr, settings.batch, settings.epochs) == (0.25, 64, PRESETS["demo"].epochs)


def test_every_field_of_every_preset_goes_there_and_back(tmp_path):
    for name, row in PRESETS.items():
        fields = json.loads(json.dumps(asdict(row)))
        del fields["note"]
        config = {"data": "x", "preset": name, "settings": fields, "steps": 3, "init": None}
        run, preset, *_ = read(write(tmp_path / "config.json", json.dumps(config)))
        assert run == {"data": "x", "preset": name, "steps": 3}
        assert configure("laptop128", 10**6, {}, preset) == row


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("learning_rate = 3", "learning_rate: there is no such field"),
        ("warm_up = 3", "is it warmup?"),
        ("lr = '3'", "lr '3': give a number"),
        ("batch = 3.5", "batch 3.5: give a whole number"),
        ("batch = true", "batch True: give a whole number"),
        ("recipe = 3", "recipe 3: give text in quotes"),
        ("milestones = 0.5", "milestones 0.5: give a list"),
        ("milestones = ['a']", "milestones 'a': give a number"),
        ("schedule = 'linear'", "schedule 'linear': give cosine or step"),
        ("encoder = 3", "give a table, [encoder]"),
        ("views = 3", "give a table, [views]"),
        ("[encoder]\nwidht = 3", "encoder.widht: there is no such field; is it width?"),
        ("[encoder]\nuse_bn = 1", "encoder.use_bn 1: give true or false"),
        ("note = 'x'", "note: there is no such field"),
        ("lr = ", "cannot be read"),
        ("steps = 5\nepochs = 3", "steps and epochs: both say how long the run is"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, says):
    with pytest.raises(UsageError) as error:
        read(write(tmp_path / "file.toml", text))
    assert says in str(error.value)
    assert "file.toml" in str(error.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"batch": 1}, "batch 1: is not at least 2"),
        ({"lr": 0.0}, "lr 0.0: is not positive"),
        ({"lr": float("nan")}, "lr nan"),
        ({"mixture_alpha": 0.0}, "mixture_alpha 0.0: is not positive"),
        ({"clip": 40.0}, "clip 40 is more than 35"),
        ({"warmup": -1}, "warmup -1: is not zero or more"),
        ({"beta1": 1.0}, "beta1 1.0: is not in"),
        ({"milestones": (0.5, 2.0)}, "milestones"),
        ({"encoder": {"size": 48}}, "encoder size 48"),
        ({"encoder": {"embedding": 8}}, "embedding 8 is less than"),
    ],
)
def test_what_is_out_of_range_is_named(fields, says):
    with pytest.raises(UsageError, match="preset demo") as error:
        configure("demo", 10**6, {}, fields)
    assert says in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "nothing.toml")
    with pytest.raises(UsageError, match="holds no fields"):
        read(write(tmp_path / "list.json", "[1]"))
