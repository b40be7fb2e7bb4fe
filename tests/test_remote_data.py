"""train.py and eval.py on a URL: the numbers of the directory, and no secret in what they say and leave."""

import json
import shutil
from base64 import b64encode
from itertools import repeat

import pytest

from tests import endpoints
from tests.commands import train
from tests.test_train import run, same_weights

SECRETS = ("hush", "p%40ss", "p@ss")
STEPS = ("--steps", "4", "--save-every", "2")


@pytest.fixture
def server(photo_set):
    with endpoints.serving(photo_set.parent) as running:
        running.secret = "Basic " + b64encode(b"hush:p@ss").decode()
        yield running


@pytest.fixture
def url(server, photo_set):
    return server.url.replace("//", "//hush:p%40ss@") + f"/{photo_set.name}"


def test_a_run_on_a_url_is_the_run_on_the_directory(server, url, photo_set, tmp_path):
    """Begun on the URL, gone on with by the same command, and evaluated; its weights are those of a run on the directory."""
    cache = ("--cache-dir", tmp_path / "cache")
    train(photo_set, "here", *STEPS, cwd=tmp_path)
    said = [train(url, "there", *STEPS, *cache, cwd=tmp_path)]
    shutil.rmtree(tmp_path / "runs/there/checkpoints/step-4")
    said += [train(url, "there", *STEPS, *cache, cwd=tmp_path)]
    assert "continuing runs/there/checkpoints/step-2" in said[1].stdout
    assert same_weights(tmp_path / "runs/here", tmp_path / "runs/there")
    said += [run("eval.py", "--probe", "knn", "--run", "there", "--data", url, *cache, "--gpus", "0", cwd=tmp_path)]
    assert "24 test images" in said[2].stdout
    assert server.requests["train-00000.tar"] == server.requests["val-00000.tar"] == 1
    shown = f"{server.url}/{photo_set.name}"
    assert json.loads((tmp_path / "runs/there/config.json").read_text())["data"] == shown
    assert json.loads((tmp_path / "runs/there/eval-knn.json").read_text())["data"] == shown
    assert f"data         {shown}: 96 images of train" in said[0].stdout
    left = [path.read_bytes().decode(errors="ignore") for path in tmp_path.rglob("*") if path.is_file()]
    told = [text for each in said for text in (each.stdout, each.stderr)]
    assert not [text for text in left + told for secret in SECRETS if secret in text]


def test_an_error_is_one_line_and_leaves_no_run(server, url, tmp_path):
    server.faults = {r"\.tar$": repeat(endpoints.status(404))}
    failed = train(url, "none", *STEPS, "--cache-dir", tmp_path / "cache", cwd=tmp_path, code=1)
    assert failed.stderr == f"train.py: {server.url}/photos/train-00000.tar: there is no such file\n"
    assert [path.name for path in (tmp_path / "runs/none").iterdir()] == [".lock"]


def test_what_no_set_can_be_at(tmp_path):
    from typer.testing import CliRunner

    from amdim.train import app

    for data, words in {
        "ftp://hush@host/set": "--data ftp://host/set: give a directory, or a URL that begins with s3://, gs://, az://, https://",
        "s3://key:hush@bucket/set": "--data s3://bucket/set: credentials are not read from such a URL; set AWS_ACCESS_KEY_ID",
        "https:///set": "--data https:///set: names no host",
        "https://hush@host/a b?hush": "--data https://host/a b: a blank in a URL is written %20",
        "s3://": "--data s3://: names no bucket",
    }.items():
        error = CliRunner().invoke(app, ["--data", data, "--gpus", "0", "--cache-dir", str(tmp_path)]).exception
        assert str(error).startswith(words), error
        assert "hush" not in str(error)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_ranks_fetch_each_shard_once_between_them(server, url, photo_set, tmp_path):
    train(photo_set, "one", *STEPS, cwd=tmp_path)
    train(url, "two", *STEPS, "--procs", "2", "--cache-dir", tmp_path / "cache", cwd=tmp_path)
    assert server.requests["train-00000.tar"] == 1
    assert (tmp_path / "runs/two/checkpoints/step-4").is_dir()
