"""Charts, tables and figures of the report, each by itself."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from amdim.evaluation.report import neighbours as report_neighbours
from amdim.evaluation.report import score_maps as report_scores
from amdim.evaluation.report.chart import Line, chart, ticks
from amdim.evaluation.report.neighbours import look_up, votes
from amdim.evaluation.report.probe_tables import confusion
from amdim.evaluation.report.projection import flatten
from amdim.evaluation.report.run_summary import duration
from amdim.evaluation.report.training_charts import begun
from amdim.evaluation.segmentation.receptive_field import FIELDS
from tests.evaluation.made_run import row


def test_a_run_that_went_on_from_another_one_has_its_own_steps(tmp_path):
    rows = [row(step) for step in (5020, 5040, 5060)]
    assert begun(rows) == [5000, 5020, 5040]
    assert duration(rows) == "0:00:18"
    assert begun([row(20), row(40)]) == [0, 20]
    assert begun([row(1)]) == [0]


def test_neighbours_and_their_votes():
    gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2], [-0.8, -0.4]])
    nearest, cosine = look_up(gallery, torch.tensor([[0.95, 0.04]]))
    assert set(nearest[0, :2].tolist()) == {0, 1}
    assert (np.diff(cosine) <= 0).all()
    labels = np.array([[1, 0, 0], [2, 1, -1], [-1, -1, -1]])
    assert votes(labels, np.array([[0.9, 0.8, 0.7]] * 3)).tolist() == [0, 2, -1]


def test_right_and_wrong_votes_are_told_apart(monkeypatch):
    """Of queries (0 to 4) with classes a, b, a, unknown, b, whose nearest are all of a: the first and third are right."""
    part = lambda labels: SimpleNamespace(labels=np.array(labels), rows=np.arange(len(labels)))  # noqa: E731
    monkeypatch.setattr(report_neighbours, "draw", lambda _, which, *__: sorted(which.tolist()))
    gallery, seen = part([0] * 9), (torch.eye(9, 4), torch.eye(5, 4))
    found = report_neighbours.neighbours(gallery, part([0, 1, 0, -1, 1]), seen, None, None)
    assert found.rows == {"right": [0, 2], "wrong": [1, 4]}
    assert (found.accuracy, found.queries, found.gallery) == (0.5, 4, 9)
    unlabelled = report_neighbours.neighbours(part([-1] * 9), part([-1] * 5), seen, None, None)
    assert (unlabelled.rows, unlabelled.accuracy) == ({"unknown": [0, 1, 2, 3, 4]}, None)


def test_score_maps_are_of_a_source_on_its_own_second_view(monkeypatch):
    """Image i is found in its own second view alone, in row 1 and column 4 of 7; nothing of it is in others'."""
    laid = []
    monkeypatch.setattr(report_scores, "heat", lambda scores, view, _: laid.append(scores) or view)
    sources, targets = torch.eye(3, 4), torch.zeros(3, 4, 7, 7)
    for i in range(3):
        targets[i, i, 1, 4] = 4.0 * (i + 1)
    field, clip = FIELDS[32], 20.0
    views = np.zeros((3, 112, 112, 3), np.uint8)
    found, (least, most) = report_scores.maps(sources, targets, views, field, clip, "r1 on r7")
    peaks = [clip * math.tanh(4.0 * (i + 1) / 2 / clip) for i in range(3)]  # <source, target> / sqrt(R), softly clipped
    assert [each.own for each in found] == pytest.approx([peak / 49 for peak in peaks])
    assert [each.others for each in found] == [0, 0, 0]
    assert (least, most) == (0, pytest.approx(peaks[-1]))
    centre = lambda place: (place * field.stride - field.pad + field.side / 2) * 112 / 32  # noqa: E731
    for scores in laid:
        row_, column = np.unravel_index(scores.argmax(), scores.shape)
        assert abs(row_ - centre(1)) < 8
        assert abs(column - centre(4)) < 8


def test_confusions_are_of_the_true_class():
    found = confusion({"linear": {"confusion": [[8, 2], [0, 5]], "classes": ["a", "b"]}}, None)
    assert found.pairs == [("a", "b", (2, 0.2))]


def test_the_most_frequent_confusion_comes_first():
    """By images, as where there are very many classes: one of the only image of a class says little."""
    found = confusion({"linear": {"confusion": [[8, 2, 0], [0, 5, 0], [1, 0, 0]], "classes": ["a", "b", "c"]}}, None)
    assert [pair[:2] for pair in found.pairs] == [("a", "b"), ("c", "a")]


def test_many_classes_are_a_matrix():
    counts = np.eye(100, dtype=int) * 9
    counts[3, 4] = 1
    found = confusion({"linear": {"confusion": counts.tolist(), "classes": [str(n) for n in range(100)]}}, None)
    assert found.table is None
    assert (found.matrix.width, found.matrix.height) == (600, 600)
    assert found.pairs == [("3", "4", (1, 0.1))]


def test_a_line_without_finite_points_is_left_out():
    drawn = chart("t", [Line("a", [1, 2], [float("nan")] * 2), Line("b", [1, 2], [1.0, 2.0])], "step", "nats", "")
    assert [name for name, _ in drawn.legend] == ["b"]


def test_long_records_keep_what_sticks_out():
    y = [100.0 + n % 7 for n in range(100_000)]
    y[31_234], y[-1] = 12_345.0, 2_000.0
    drawn = chart("t", [Line("a", list(range(100_000)), y)], "step", "images/s", "")
    assert drawn.legend == [("a", "2,000")]
    heights = [float(place) for place in re.findall(r"[ML][\d.]+ ([\d.]+)", drawn.svg.split('class="line')[1])]
    assert 300 < len(heights) <= 402
    assert sum(height < 100 for height in heights) == 1
    assert len(drawn.svg) < 20_000


def test_a_collapsed_encoder_is_one_point_of_the_map():
    places, method = flatten(torch.ones(40, 8), 0)
    assert np.isfinite(places).all()
    assert method == "principal components"


def test_ticks_are_round_and_inside():
    for low, high in ((0, 1), (-3.2, 17), (1e-5, 4e-5), (900, 123456)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 8
        assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)


def test_a_chart_survives_one_point_and_what_is_not_finite():
    svg = chart("t", [Line("a", [1], [2.0]), Line("b", [1, 2, 3], [1.0, float("nan"), 2.0])], "step", "<nats>", "").svg
    assert "nan" not in svg.replace("nats", "")
    assert "&lt;nats&gt;" in svg
