"""The table of what probes found."""

from rich.console import Console

from evaluation import results
from tests.evaluation.made_run import result


def test_names_are_printed_as_they_are_and_few_labels_stand_beside_their_baselines():
    console = Console(width=200, record=True)
    results.show([result("linear", ["dog [puppy]", "[/x]"])], console)
    shown = console.export_text()
    assert "dog [puppy] 70.0% (taken for [/x] 30.0%)" in shown
    rows = {row[0].strip(): row[1].strip() for line in shown.splitlines() if len(row := line.strip("│").split("│")) == 2}
    assert rows["this encoder, 0.1 of the labels"] == "50.00%"
    assert rows["same encoder, random initialisation, 0.1 of the labels"] == "25.00%"
    assert not any(name.startswith("raw pixels") and "labels" in name for name in rows)
