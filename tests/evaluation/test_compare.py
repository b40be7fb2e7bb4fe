"""Runs beside one another, and the requests that cannot be met."""

import json

import pytest
from rich.console import Console

from amdim.errors import UsageError
from amdim.evaluation.compare_runs import compare, picture
from amdim.evaluation.eval_options import runs_to_compare
from amdim.evaluation.export_features import write_features
from amdim.evaluation.run_record import read_record, read_results, top1

ROW = {"loss": 3.0, "loss_1t5": 1.0, "loss_1t7": 1.5, "loss_5t5": 0.5, "linear_top1": None, "mlp_top1": None}


def write_run(path, *speeds, planned=40):
    path.mkdir(parents=True)
    config = {"data": "data/shapes", "preset": "demo", "settings": {"batch": 8}, "seed": 0, "steps": planned}
    (path / "config.json").write_text(json.dumps(config))
    rows = [ROW | {"step": 20 * (n + 1), "images_per_s": speed} for n, speed in enumerate(speeds)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def compared(runs):
    """What is printed."""
    console = Console(width=200, record=True)
    compare(runs, console)
    return console.export_text()


def test_the_first_window_is_no_speed_and_a_run_that_has_just_begun_is_a_row(tmp_path):
    runs = [write_run(tmp_path / "a", 1, 500, planned=60), write_run(tmp_path / "b")]
    text, drawn = compared(runs), tmp_path / "compare.png"
    assert "500" in text
    assert "40 of 60" in text
    assert "0 of 40" in text
    assert f"picture: {drawn}" in text.replace("\n", "")
    assert drawn.stat().st_size > 10_000
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "compare.png"}


def test_the_table_is_there_where_the_picture_cannot_be(tmp_path):
    (tmp_path / "compare.png").mkdir()
    console = Console(width=200, record=True)
    with pytest.raises(OSError, match=r"compare\.png"):
        compare([write_run(tmp_path / "a", 1), write_run(tmp_path / "b", 1)], console)
    assert "images/s, median" in console.export_text()


def test_names_are_printed_as_they_are(tmp_path):
    found = [write_run(tmp_path / name, 1) for name in ("a [puppy]", "b [red]")]
    text = compared(found)
    assert "a [puppy]" in text
    assert "b [red]" in text


def test_a_result_of_other_data_or_another_step_says_so(tmp_path):
    found = [write_run(tmp_path / name, 1, 1) for name in ("own", "older", "away")]
    for run, other in zip(found, ({}, {"step": 20}, {"data": "data/places205"}), strict=True):
        result = {"top1": 0.5, "data": "data/shapes", "step": 40} | other
        (run / "eval-linear.json").write_text(json.dumps(result))
    (row,) = (line for line in compared(found).splitlines() if "linear, top-1" in line)
    assert [cell.strip() for cell in row.split("│")[2:5]] == ["50.00%", "50.00%, step 20", "50.00%, on places205"]


APART = {
    "paper's protocol, 30 epochs": {"protocol": "paper", "chosen": {"epochs": 30.0}},
    "weights of runs/other/checkpoints/step-40": {"checkpoint": "runs/other/checkpoints/step-40", "run": "runs/own"},
    "last weights": {"averaged": False},
    "": {"checkpoint": "runs/own/checkpoints/step-40", "run": "/elsewhere/runs/own", "averaged": True},
}


@pytest.mark.parametrize("words", APART)
def test_a_result_of_another_way_or_other_weights_says_so(tmp_path, words):
    run = write_run(tmp_path / "own", 1, 1)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"settings": {"ema": 0.99}}))
    record = read_record(run)
    assert ", ".join(record.marks({"top1": 0.5, "data": "data/shapes", "step": 40} | APART[words])) == words


def test_any_name_of_a_run_is_in_the_pictures_legend(tmp_path):
    names = ["$x^{$", "_old", "a_b"]
    figure = picture([read_record(write_run(tmp_path / name, 1, 1)) for name in names])
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text().replace("\\$", "$").strip("\u200b") for text in legend.get_texts()] == names


def heights(figure):
    """Of the bars of each group, by its label."""
    axes = figure.axes[2]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    found = {label: [] for label in labels}
    for bar in sorted(axes.patches, key=lambda bar: bar.get_x()):
        found[labels[round(bar.get_x() + bar.get_width() / 2)]].append((round(bar.get_height(), 1), bar.get_hatch()))
    return found


def test_accuracies_on_different_images_are_not_beside_one_another(tmp_path):
    found = [write_run(tmp_path / name, 1, 1) for name in ("own", "older", "away")]
    for run, other in zip(found, ({"top1": 0.4}, {"step": 20}, {"data": "data/places205", "interval": [0.4, 0.7]}), strict=True):
        (run / "eval-linear.json").write_text(json.dumps({"top1": 0.5, "data": "data/shapes", "step": 40} | other))
    (found[0] / "eval-knn.json").write_text(json.dumps({"top1": 0.25, "data": "data/shapes", "step": 40}))
    assert heights(picture([read_record(run) for run in found])) == {
        "linear\non shapes": [(40, ""), (50, "//")],
        "linear\non places205": [(50, "")],
        "k nearest\nneighbours\non shapes": [(25, "")],
    }


def test_accuracies_of_another_way_or_other_images_of_that_name_are_in_groups_of_their_own(tmp_path):
    found = [write_run(tmp_path / name, 1, 1) for name in ("own", "paper", "other")]
    paper = {"protocol": "paper", "chosen": {"epochs": 30.0}}
    for run, other in zip(found, ({}, paper, {"n_test": 40, "test_images": "b"}), strict=True):
        (run / "eval-linear.json").write_text(
            json.dumps({"top1": 0.5, "data": "data/x", "n_test": 84, "test_images": "a", "step": 40} | other)
        )
    assert list(heights(picture([read_record(run) for run in found]))) == [
        "linear\non x\n84 images",
        "linear\non x\n84 images\npaper's protocol\n30 epochs",
        "linear\non x\n40 images",
    ]


def test_runs_of_one_name_are_told_apart(tmp_path):
    text = compared([write_run(tmp_path / "a" / "demo", 1), write_run(tmp_path / "b" / "demo", 1)])
    assert "a/demo" in text
    assert "b/demo" in text


def test_a_run_without_data_of_its_own_has_its_results(tmp_path):
    """As one that was imported."""
    run = write_run(tmp_path / "imported", 1)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data": ""}))
    (run / "eval-linear.json").write_text(json.dumps({"top1": 0.5, "data": "data/imagenet", "step": 20, "weights": "w"}))
    record = read_record(run)
    assert record.current("w").keys() == {"linear"}
    assert record.current("v") == {}


def test_results_that_are_not_whole_are_passed_over(tmp_path):
    (tmp_path / "eval-mlp.json").write_text('{"probe": "mlp", "top1": 0.9}')
    (tmp_path / "eval-knn.json").write_text('{"probe": "knn", "to')
    (tmp_path / "eval-segment.json").write_text('{"probe": "segment", "top1": null}')
    (tmp_path / "eval-linear.json").write_text('{"probe": "linear", "top1": 0.8, "interval": [0.79, 0.81]}')
    found = read_results(tmp_path)
    assert list(found) == ["linear", "mlp"]
    assert [top1(each) for each in found.values()] == ["80.00% (79.0–81.0)", "90.00%"]


def test_what_cannot_be_compared_is_named(tmp_path):
    one = write_run(tmp_path / "a", 1)
    with pytest.raises(UsageError, match="two runs"):
        compared([one])
    with pytest.raises(UsageError, match="no run here"):
        compared([one, tmp_path])


def test_a_name_without_its_option_says_which_there_are():
    with pytest.raises(UsageError, match="--run demo"):
        runs_to_compare(False, ["demo"])
    assert [str(path) for path in runs_to_compare(True, ["a", "runs/b/"])] == ["runs/a", "runs/b"]


def test_features_go_to_npz_files(tmp_path):
    with pytest.raises(UsageError, match=r"\.npz"):
        write_features(None, tmp_path, tmp_path / "out.npy", None, None)
