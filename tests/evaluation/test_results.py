"""The table of what probes found."""

import pytest
from rich.console import Console

from amdim.evaluation import results
from amdim.evaluation.run_record import way
from tests.evaluation.made_run import result


def test_names_are_printed_as_they_are_and_few_labels_stand_beside_their_baselines():
    console = Console(width=200, record=True)
    results.show([result("linear", ["dog [puppy]", "[/x]"])], console)
    shown = console.export_text()
    assert "dog [puppy] 70.0% (taken for [/x] 30.0%)" in shown
    rows = {row[0].strip(): row[1].strip() for line in shown.splitlines() if len(row := line.strip("│").split("│")) == 2}
    assert rows["this encoder, 7 labels"] == "50.00%"
    assert rows["same encoder, random initialisation, 7 labels"] == "25.00%"
    assert not any(name.startswith("raw pixels") and "labels" in name for name in rows)


PAPER = {"protocol": "paper", "views": 0, "chosen": {"epochs": 1.0}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ""),
        ({"protocol": "cached", "views": 0, "chosen": {"penalty": 1e-3}}, ""),
        ({"protocol": "cached", "views": 2, "chosen": {"penalty": 1e-3}}, "2 augmented views"),
        (PAPER, "paper's protocol, 1 epoch"),
        ({"protocol": "finetune", "views": 0, "chosen": {"epochs": 10.0, "lr": 1e-3}}, "10 epochs"),
    ],
)
def test_how_a_probe_was_trained_is_said_where_it_is_not_the_default(fields, words):
    assert way(fields) == words


def test_another_protocol_is_another_curve_and_stands_over_its_column():
    console, found = Console(width=200, record=True), result("linear", ["cats", "dogs"]) | PAPER
    results.show([found], console)
    assert "paper's protocol, 1 epoch" in console.export_text()
    assert results.scalars(found, "data/x")["eval/linear_top1_papers_protocol_1_epoch"] == 0.7
    assert results.scalars(result("linear", ["cats", "dogs"]), "data/x")["eval/linear_top1"] == 0.7


def test_a_board_that_cannot_be_written_is_a_warning(tmp_path, capfd):
    (tmp_path / "run").touch()
    results.write_board(tmp_path / "run", [result("linear", ["cats", "dogs"])], "data/x")
    assert "TensorBoard's events cannot be written" in capfd.readouterr().err
