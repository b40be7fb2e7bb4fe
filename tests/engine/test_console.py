"""The line of a log step."""

from rich.console import Console

from amdim.engine.monitor import console
from amdim.engine.monitor.console import Progress, describe

ROW = {
    "step": 40,
    "loss": 30.0,
    "loss_1t5": 7.0,
    "loss_1t7": 8.0,
    "loss_5t5": 11.0,
    "regulariser": 2.0,
    "linear_top1": 0.25,
    "mlp_top1": 0.5,
    "images_per_s": 800.0,
    "images_per_s_a_rank": 800.0,
    "gflop_per_s": 1234.4,
    "mfu": None,
    "data_s": 0.01,
    "compute_s": 0.2,
    "lr": 2e-3,
    "memory_gib": 1.5,
    "checkpoint_step": None,
}


def test_one_rank():
    assert describe(ROW, 100, 65) == (
        "step 40/100  loss 30.000 (1→5 7.000 1→7 8.000 5→5 11.000 reg 2.000)  linear 25.0% mlp 50.0%  "
        "800 images/s  1234 GFLOP/s  data 0.010 s compute 0.200 s  lr 2.00e-03  1.50 GiB  eta 0:01:05"
    )


def test_several_ranks_with_a_known_peak_and_a_checkpoint():
    row = ROW | {"images_per_s_a_rank": 100.0, "mfu": 0.414, "checkpoint_step": 20, "linear_top1": None, "mlp_top1": None}
    line = describe(row, 100, 65)
    assert "800 images/s (100 a rank)  1234 GFLOP/s (41% of the peak)" in line
    assert line.endswith("1.50 GiB  saved 20  eta 0:01:05")
    assert "linear" not in line


def test_the_time_to_the_end_is_at_the_pace_since_the_run_went_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    progress = Progress(100, Console(quiet=True))
    now[0] = 50
    progress.begin(40)
    now[0] = 70
    assert progress.remaining(60) == 40
