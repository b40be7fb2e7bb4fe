"""The bench of optimizers, in its smallest form: rows for a run and its average, from images of the training split alone."""

import pytest

from amdim.errors import UsageError
from bench import optimizer_ablation


def test_a_row_a_variant_and_one_for_the_average(photo_set, tmp_path, monkeypatch, capsys):
    asked = []

    class Loader(optimizer_ablation.EvalLoader):
        def __init__(self, data, splits, *more):
            asked.extend(splits)
            super().__init__(data, splits, *more)

    monkeypatch.setattr(optimizer_ablation, "EvalLoader", Loader)
    monkeypatch.setitem(optimizer_ablation.VARIANTS, "adam", (*optimizer_ablation.VARIANTS["adam"], "--preset", "demo"))
    optimizer_ablation.main(photo_set, steps=1, seeds="3", only="adam", out=tmp_path)
    shown = capsys.readouterr().out
    assert "seed 3  adam: loss" in shown
    table = shown.partition("top-1: mean")[2].splitlines()[1:]
    assert [line[:32].strip() for line in table] == ["adam", optimizer_ablation.AVERAGE]
    assert set(asked) == {"train"}


def test_mean_and_range():
    words = optimizer_ablation.row("x", [(2.0, 0.25), (4.0, 0.75)]).split("  ")
    assert "50.00% (25.00% to 75.00%)" in " ".join(words)
    assert "3.000 (2.000 to 4.000)" in " ".join(words)


def test_a_variant_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="there are adam,"):
        optimizer_ablation.main(tmp_path, only="sgd", out=tmp_path)
