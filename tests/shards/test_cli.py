"""The command line: what is done is said, and every error is one line with its exit code."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from amdim.shards import build_report, manifest
from amdim.shards.contact_sheet import _by_class
from amdim.shards.shapes import renderer
from amdim.shards.sources import registry


@pytest.fixture
def photos(tmp_path):
    """Two classes of five pictures."""
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            Image.effect_noise((50, 40), 30 + i).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def test_build_info_verify_preview(cli, photos, tmp_path):
    out = tmp_path / "set"
    (photos / "cat/notes.txt").touch()
    built = cli("build", "folder", "--src", photos, "--out", out, "--val", 0.2, "--size", 32, "--workers", 1)
    assert built.code == 0, built.err
    assert "ignored 1 files that are no images or belong to no split: .txt 1\n" in built.out
    assert "finished" in built.out
    recipe = manifest.load(out).recipe
    assert len(recipe.pop("files")) == 16
    assert recipe == {**{"source": "folder", "seed": 0, "size": 32, "quality": 90, "val": 0.2, "unlabeled": False}}
    shown = cli("info", out)
    assert shown.code == 0
    assert "cat, dog" in shown.out
    assert "5 to 5 images" in shown.out
    assert "40 x 32 pixels" in shown.out
    assert cli("preview", out).code == 0
    assert Image.open(out / "preview.png").size[0] > 1000
    checked = cli("verify", out)
    assert checked.code == 0, checked.out
    assert "whole, 10 samples" in checked.out

    again = cli("build", "folder", "--src", photos, "--out", out, "--val", 0.2, "--size", 32)
    assert again.code == 0
    assert "already built" in again.out


def test_a_set_without_classes_has_a_preview(cli, photos, tmp_path):
    assert cli("build", "folder", "--src", photos, "--out", tmp_path / "set", "--unlabeled", "--workers", 1).code == 0
    assert cli("preview", tmp_path / "set", "--out", tmp_path / "sheet.png").code == 0
    assert (tmp_path / "sheet.png").exists()
    assert cli("info", tmp_path / "set").code == 0


def test_rejections_are_summed_up_by_reason(cli, photos, tmp_path):
    (photos / "cat/a.jpg").touch()
    (photos / "cat/b.jpg").touch()
    built = cli("build", "folder", "--src", photos, "--out", tmp_path / "set", "--max-rejected", 0.5, "--val", 0)
    assert built.code == 0
    assert "rejected 2: zero bytes" in built.out


def test_damage_has_exit_code_1(cli, shapes_set, tmp_path):
    copy = shutil.copytree(shapes_set, tmp_path / "copy")
    (copy / "val-00000.tar").unlink()
    outcome = cli("verify", copy, "--fast")
    assert outcome.code == 1
    assert "val-00000.tar: missing" in outcome.out
    assert outcome.err.startswith(f"shards: {copy}: damaged")


def test_errors_are_one_line_with_their_exit_code(cli, photos, tmp_path):
    empty, file = tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.write_text("not a directory")
    set_ = tmp_path / "set"
    assert cli("build", "folder", "--src", photos, "--out", set_, "--workers", 1).code == 0
    cases = [
        (2, "no such data set; known are", "build", "imagenot"),
        (2, "folder needs --src", "build", "folder"),
        (2, "no such directory", "build", "folder", "--src", tmp_path / "none"),
        (2, "no images in it", "build", "folder", "--src", empty),
        (2, "--unlabeled", "build", "folder", "--src", photos / "cat", "--out", tmp_path / "x"),
        (2, "lies inside --src", "build", "folder", "--src", photos, "--out", photos / "set"),
        (2, "size 256 → 32", "build", "folder", "--src", photos, "--out", set_, "--size", 32),
        (2, "--size makes no sense for shapes", "build", "shapes", "--size", 32, "--out", tmp_path / "x"),
        (2, "--unlabeled makes no sense for shapes", "build", "shapes", "--unlabeled", "--out", tmp_path / "x"),
        (2, "quality", "build", "folder", "--src", photos, "--quality", 101),
        (2, "No such option", "build", "shapes", "--colour", "red"),
        (1, "Not a directory", "build", "folder", "--src", photos, "--out", file / "set"),
        (2, "make shards DATA=folder SRC=", "info", empty),
        (2, "make shards DATA=folder SRC=", "verify", tmp_path / "none"),
        (2, "make shards DATA=folder SRC=", "preview", empty),
    ]
    for code, message, *words in cases:
        outcome = cli(*words)
        assert outcome.code == code, (words, outcome)
        assert message in outcome.err, (words, outcome)
        assert outcome.err.count("\n") == 1, (words, outcome)
        assert "Traceback" not in outcome.err


def test_a_terminal_gets_a_bar_and_a_pipe_a_few_lines():
    for terminal in (True, False):
        console = Console(force_terminal=terminal, width=120, file=io.StringIO())
        with build_report.progress(console, "build", 1000) as show:
            for done in range(1, 1001):
                show(done)
        text = console.file.getvalue()
        assert "1,000 of 1,000" in text or "1000/1000" in text
        assert ("\x1b" in text) == terminal
        assert text.count("\n") < 10


def test_debug_shows_the_traceback(monkeypatch):
    from amdim.errors import UsageError, run_app
    from amdim.shards.cli import app

    monkeypatch.setattr(sys, "argv", ["shards", "build", "imagenot", "--debug"])
    with pytest.raises(UsageError):
        run_app(app, "shards")


def test_a_module_run_from_the_shell(tmp_path):
    root = Path(__file__).parents[2]
    run = [sys.executable, "-m", "shards", "build", "folder", "--src", str(tmp_path / "none")]
    outcome = subprocess.run(run, cwd=root, capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert outcome.stderr == f"shards: {tmp_path / 'none'}: no such directory; --src is the directory that holds the images\n"


def test_every_source_is_reachable_by_name():
    assert set(registry.SOURCES) == {
        *("shapes", "fashion-mnist", "folder", "imagenet", "places205", "cifar10", "cifar100", "stl10", "webdataset"),
    }
    assert registry.source("shapes", registry.Options(seed=5)).classes == renderer.CLASSES


def test_a_preview_gathers_classes_from_all_shards(cli, tmp_path):
    """Twenty classes of four images in several shards."""
    for number in range(80):
        path = tmp_path / f"src/class-{number % 20:02d}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), 30 + number).save(path)
    out = tmp_path / "set"
    tars = []
    for part in ("a", "b"):  # two sets of the same classes stand for two shards
        assert cli("build", "folder", "--src", tmp_path / "src", "--out", out / part, "--val", 0, "--workers", 1).code == 0
        tars.append(out / part / "train-00000.tar")
    rows = _by_class(tars, manifest.load(out / "a").classes)
    assert [len(spots) for _, spots in rows] == [8] * 20
    assert {tar for _, spots in rows for tar, _, _ in spots} == set(tars)


def test_a_preview_is_a_png_and_names_where_it_cannot_go(cli, photos, tmp_path):
    out = tmp_path / "set"
    assert cli("build", "folder", "--src", photos, "--out", out, "--workers", 1).code == 0
    wrong = cli("preview", out, "--out", tmp_path / "sheet.jpg")
    assert (wrong.code, "ends in .png" in wrong.err) == (2, True)
    nowhere = cli("preview", out, "--out", tmp_path / "none/sheet.png")
    assert (nowhere.code, nowhere.err.strip()) == (
        1,
        f"shards: {tmp_path / 'none/sheet.png'}: No such file or directory; name another path",
    )


def test_an_empty_src_is_not_the_current_directory(cli, tmp_path):
    outcome = cli("build", "folder", "--src", "", "--out", tmp_path / "set")
    assert (outcome.code, "is empty; give the directory" in outcome.err) == (2, True)
    assert not (tmp_path / "set").exists()


def test_too_many_bad_images_are_told_with_their_reasons(cli, photos, tmp_path):
    (photos / "cat/a.jpg").touch()
    (photos / "cat/b.jpg").write_bytes(b"<html>")
    outcome = cli("build", "folder", "--src", photos, "--out", tmp_path / "set", "--max-rejected", 0, "--val", 0)
    assert outcome.code == 1
    assert "are bad (1: zero bytes; 1: not an image)" in outcome.err or "are bad (1: not an image; 1: zero bytes)" in outcome.err


def test_ctrl_c_says_how_to_go_on(cli, photos, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("amdim.shards.build.build", interrupted)
    stopped = cli("build", "folder", "--src", photos, "--out", tmp_path / "set", "--workers", 1)
    assert stopped.code == 130
    assert "folder: interrupted; type the same again to go on" in stopped.err
