"""What a signal asks for, and what to type to go on."""

import os
import signal

import pytest

from amdim.engine.distributed.signals import SIGNALS, GracefulShutdown, same_command


@pytest.fixture
def restored():
    """The handlers that this process had."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_terminal_that_closes_ends_a_run_and_nohup_keeps_it_out(restored, capfd):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup, too
    stop = GracefulShutdown()
    os.kill(os.getpid(), signal.SIGHUP)
    assert stop.code == 129
    assert capfd.readouterr().err == "SIGHUP: finishing this step and saving; Ctrl-C ends it at once\n"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = GracefulShutdown()
    os.kill(os.getpid(), signal.SIGHUP)
    assert stop.code is None


def test_of_a_launched_rank_a_second_ctrl_c_is_the_launchers(restored, capfd):
    stop = GracefulShutdown(speaks=False, launched=True)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.code == 130
    assert capfd.readouterr().err == ""


def test_the_same_command_but_for_where_it_started():
    began = ["train.py", "--data", "my set", "--resume", "runs/a/checkpoints/step-5", "--run", "a"]
    assert same_command(began) == "python train.py --data 'my set' --run a"
    assert same_command(["train.py", "--resume=x", "--steps", "3"]) == "python train.py --steps 3"
    assert same_command(["train.py", "--run", "--resume"]) == "python train.py --run"
