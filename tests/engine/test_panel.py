"""The live panel: what it says of a log row, and that a terminal shows it in place of lines."""

from io import StringIO

from rich.console import Console

from amdim.engine.monitor.console import Progress
from amdim.engine.monitor.live_panel import cells, panel
from tests.engine.test_console import ROW

FULL = ROW | {"epoch": 1.5, "grad_norm": 12.3, "checkpoint_mb": None, "checkpoint_write_s": None}


def shown(row, terminal=True):
    out = StringIO()
    console = Console(file=out, width=100, force_terminal=terminal, color_system=None)
    console.print(panel(row, row["step"], 100, 65))
    return out.getvalue()


def test_everything_one_wants_to_see_is_there():
    row = FULL | {"images_per_s_a_rank": 100.0, "mfu": 0.414}
    row |= {"checkpoint_step": 20, "checkpoint_mb": 17.2, "checkpoint_write_s": 0.3}
    text = shown(row)
    for words in (
        "step 40/100, epoch 1.50",
        "40.0%, 0:01:05 left",
        "30.000 = 1→5 7.000 + 1→7 8.000 + 5→5 11.000 + regulariser 2.000",
        "linear 25.0%, MLP 50.0%",
        "800 images/s, 100 a rank, 1,234 GFLOP/s, 41% of the peak",
        "data 0.010 s, compute 0.200 s: 5% of it for data",
        "2.00e-03, gradient's norm 12.3",
        "1.50 GiB",
        "step 20, 17.2 MB, written in 0.3 s",
    ):
        assert words in text, words


def test_what_is_not_known_is_not_said():
    text = shown(FULL | {"linear_top1": None, "mlp_top1": None, "loss_mixture": 0.0})
    assert "online probes" not in text
    assert "mixture" not in text
    assert "peak" not in text
    assert "none yet" in text


def test_a_mixtures_term_is_among_the_others():
    """Which may be one more than the loss is made of."""
    assert cells(FULL | {"loss_mixture": 0.5})["loss"].startswith(
        "30.000 of 1→5 7.000, 1→7 8.000, 5→5 11.000, mixture 0.500, reg"
    )


def test_a_terminal_gets_the_panel_and_a_file_gets_lines():
    for terminal in (True, False):
        out = StringIO()
        with Progress(100, Console(file=out, width=100, force_terminal=terminal, color_system=None)) as progress:
            progress.tick(3)
            if progress.live:
                progress.live.refresh()  # which comes four times a second
            progress.show(FULL)
            progress.drawn = 0  # long ago
            progress.tick(44)
        assert ("╭─ AMDIM" in out.getvalue()) == terminal
        assert ("step 3/100, numbers follow" in out.getvalue()) == terminal
        assert ("step 44/100, epoch 1.65" in out.getvalue()) == terminal
        assert out.getvalue().startswith("step 40/100  loss") != terminal
