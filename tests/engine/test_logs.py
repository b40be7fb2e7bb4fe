"""A run's record survives a disk that is full, and a kill while it is begun."""

import json
import time

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as PluginEventAccumulator

from amdim.engine.monitor import metrics_logger
from amdim.engine.monitor.metrics_logger import MetricsLogger, read_rows
from tests.commands import little_room

ROW = {"loss": 1.0, "loss_1t5": 1.0, "loss_1t7": 1.0, "loss_5t5": 1.0, "linear_top1": None, "mlp_top1": None}


def row(step):
    return ROW | {"step": step}


class Board:
    """TensorBoard's writer, whose thread has met a full disk: it raises that error again whenever it is asked."""

    made = 0

    def __init__(self, *_, **__):
        Board.made += 1
        self.number = Board.made

    def add_scalar(self, *_):
        if self.number == 1:
            raise OSError(28, "No space left on device")

    def close(self):
        pass


@pytest.fixture
def board(monkeypatch):
    Board.made = 0
    monkeypatch.setattr(metrics_logger, "SummaryWriter", Board)
    return Board


def steps(directory):
    return [each["step"] for each in read_rows(directory)]


def test_a_full_disk_is_one_warning_and_rows_are_written_when_there_is_room(tmp_path, board, capsys):
    """/dev/full is a disk that has no room, to write and to flush."""
    record = MetricsLogger(tmp_path, 0)
    record.path.unlink()
    record.path.symlink_to("/dev/full")
    for step in (20, 40):
        record.write(row(step))
    warning = capsys.readouterr().err
    assert warning.count("No space left on device). TRAINING GOES ON") == 1
    record.path.unlink()
    record.write(row(60))
    assert steps(tmp_path) == [20, 40, 60]
    record.path.unlink()
    record.path.symlink_to("/dev/full")
    record.write(row(80))
    assert "No space left" in capsys.readouterr().err  # it is full once more
    record.close()


def test_half_a_row_is_written_anew(tmp_path, board):
    record = MetricsLogger(tmp_path, 0)
    record.write(row(20))
    with record.path.open("a") as file:
        file.write('{"step": 40, "lo')  # as far as there was room
    record.write(row(40))
    record.close()
    assert [json.loads(line)["step"] for line in record.path.read_text().splitlines()] == [20, 40]


def test_a_board_that_has_failed_is_made_anew(tmp_path, board, capsys):
    record = MetricsLogger(tmp_path, 0)
    for step in (20, 40, 60):
        record.write(row(step))
    assert board.made == 2
    assert steps(tmp_path) == [20, 40, 60]
    assert "No space left" in capsys.readouterr().err


def board_of(directory):
    """Steps of the scalar ``loss`` that TensorBoard shows."""
    found = PluginEventAccumulator(str(directory), size_guidance={"tensors": 0})
    found.Reload()
    return [each.step for each in found.Tensors("loss")]


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path):
    for resumed_at, steps_ in ((0, (20, 40, 60)), (30, (40, 60, 80)), (70, (80, 100))):
        record = MetricsLogger(tmp_path, resumed_at)
        for step in steps_:
            record.write(row(step))
        record.close()
        time.sleep(1.1)  # files are told apart by the second they were begun in
    assert board_of(tmp_path) == [20, 40, 60, 80, 100]


def test_a_disk_that_is_really_full_is_one_warning_and_no_traceback(tmp_path, capsys):
    """And what TensorBoard showed before stays, also after a resume."""
    first = MetricsLogger(tmp_path, 0)
    first.write(row(20))
    first.close()
    time.sleep(1.1)
    record = MetricsLogger(tmp_path, 25)
    record.write(row(40))
    record.board.flush()
    with little_room(100):
        for step in range(60, 1000, 20):
            record.write(row(step))
            time.sleep(0.01)
    record.write(row(1000))
    time.sleep(1.1)
    record.write(row(1020))
    record.close()
    assert steps(tmp_path) == list(range(20, 1021, 20))
    errors = capsys.readouterr().err
    assert errors.count("TRAINING GOES ON") == len(errors.splitlines()) == 1, errors
    assert {20, 40, 1020} <= set(board_of(tmp_path))


def test_a_run_goes_on_with_a_full_disk(tmp_path, board, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    first = MetricsLogger(tmp_path, 0)
    for step in (20, 40):
        first.write(row(step))
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    again = MetricsLogger(tmp_path, 30)
    assert steps(tmp_path) == [20]
    again.write(row(40))
    assert steps(tmp_path) == [20, 40]


def test_what_came_after_the_checkpoint_is_dropped_in_one_go(tmp_path, board, monkeypatch):
    """Also from a record that has to be written anew, for the sake of half a line."""
    first = MetricsLogger(tmp_path, 0)
    for step in (20, 40):
        first.write(row(step))
    (tmp_path / metrics_logger.FILE).write_text('{"step": 1' + "\n" + (tmp_path / metrics_logger.FILE).read_text())

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            MetricsLogger(tmp_path, 30)
    assert steps(tmp_path) == [20, 40]
    MetricsLogger(tmp_path, 30)
    assert steps(tmp_path) == [20]
