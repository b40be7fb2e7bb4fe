"""The bench of mixtures, but for its training: how settings become commands and results become rows."""

import json

import pytest

from amdim.errors import UsageError
from bench import mixtures


def test_settings_become_options():
    assert mixtures.options("0") == ["--mixture", "0"]
    assert mixtures.options("2,join,0.3") == ["--mixture", "2", "--mixture-mode", "join", "--mixture-alpha", "0.3"]
    with pytest.raises(UsageError, match="2,replace"):
        mixtures.options("2,join")


def test_rows_say_what_was_measured(tmp_path, monkeypatch, capsys):
    """Training and evaluation are replaced by what they leave behind."""
    calls = []
    scores = {"mixture": {"iou_best": 0.625, "iou_fixed": 0.25, "ari": 0.5}}
    clusters = {"kmeans_r7_by_image": {"iou_best": 0.125, "iou_fixed": None, "ari": 0.0}}

    def call(program, *arguments):
        calls.append((program, arguments))
        setting = "2-join-0.3" if "2-join-0.3" in " ".join(arguments) else "0"
        run = tmp_path / "runs" / f"{setting}-shapes32-fused-seed0"
        run.mkdir(parents=True, exist_ok=True)
        row = {"step": 1, "loss": 1, "loss_1t5": 1, "loss_1t7": 5.5, "loss_5t5": 1, "linear_top1": 0, "mlp_top1": 0}
        (run / "metrics.jsonl").write_text(json.dumps(row | {"loss_mixture": 4.25}) + "\n")
        if "linear" in arguments:
            (run / "eval-linear.json").write_text(json.dumps({"top1": 0.375}))
        if "--segment" in arguments:
            found = {"methods": scores | clusters, "methods_train": scores | clusters, "n_train": 7, "n_test": 9}
            (run / "eval-segment.json").write_text(json.dumps(found))
        return 0.0

    monkeypatch.setattr(mixtures, "call", call)
    monkeypatch.setattr(mixtures, "ceiling", lambda _: (0.75, 0.4))
    mixtures.main(["0", "2,join,0.3"], data=tmp_path / "data", runs=tmp_path / "runs")
    assert [program for program, _ in calls] == ["-m", "train.py", "eval.py", "train.py", "eval.py", "eval.py"]
    printed = capsys.readouterr().out
    mixtures.main(["0", "2,join,0.3"], data=tmp_path / "data", runs=tmp_path / "runs")
    assert [program for program, _ in calls[6:]] == ["-m", "train.py", "train.py"]  # nothing is measured twice
    assert capsys.readouterr().out == printed
    assert calls[1][1][-4:-2] == ("--recipe", "shapes32-fused")
    _, _, _, plain, mixed, counts, first, second, masks = printed.splitlines()
    assert plain == "0: linear 37.5%, 1→7 5.50, mixture 4.25"
    assert mixed.startswith("2,join,0.3: ")
    assert "7 training" in counts
    assert first.split() == ["mixture", "0.625", "0.250", "0.500", "0.625", "0.250", "0.500"]
    assert second.split() == ["kmeans_r7_by_image", "0.125", "0.000", "0.125", "0.000"]
    assert "0.750" in masks
