"""A run that is killed, stopped, or out of luck loses no work: the same command ends with the bits of an undisturbed run."""

import fcntl
import functools
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from amdim.engine import checkpoint
from tests.test_train import SMALL, command, final, losses, same_weights, train

STEPS = ("--steps", "45")
RANKS = {1: (), 2: ("--procs", "2"), 4: ("--procs", "4")}


@pytest.fixture(scope="module")
def undisturbed(photo_set, tmp_path_factory):
    """By number of ranks: the directory of a run of 45 steps; made when it is first asked for."""
    made = {}

    def find(ranks):
        if ranks not in made:
            cwd = tmp_path_factory.mktemp("undisturbed")
            train(photo_set, "whole", *STEPS, *RANKS[ranks], cwd=cwd)
            made[ranks] = cwd / "runs" / "whole"
        return made[ranks]

    return find


def start(data, cwd, *more, **options):
    arguments = command("train.py", "--data", data, *SMALL, "--run", "cut", *STEPS, *more)
    options = {"preexec_fn": heed_hangups} | options
    return subprocess.Popen(arguments, cwd=cwd, text=True, start_new_session=True, **options)


def heed_hangups():
    """These tests may run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_until(true, process):
    """Looks every millisecond."""
    until = time.monotonic() + 120
    while not true():
        assert process.poll() is None, "it ended before it was to be killed"
        assert time.monotonic() < until
        time.sleep(0.001)


def kill(process):
    """All of it at once, as a power cut would: the launcher and its ranks."""
    for pid in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):  # it has ended since it was listed
            os.kill(pid, signal.SIGKILL)
    process.wait()


def descendants(pid):
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *descendants(child)]
    return found


def unfinished(cwd):
    return list((cwd / "runs" / "cut" / "checkpoints").glob(".tmp-*"))


def kill_sometime(data, cwd, ranks, rng):
    """Between the first step and the last: some moments after one of its saves, or after its start."""
    process = start(data, cwd, "--save-every", "3", *RANKS[ranks], stdout=subprocess.DEVNULL)
    run, after = cwd / "runs" / "cut", rng.randrange(0, 31, 3)
    wait_until((run / "config.json").exists, process)
    wait_until(lambda: saved_last(run) >= after, process)
    time.sleep(rng.uniform(0, 0.1))
    assert process.poll() is None
    kill(process)
    assert not (run / "checkpoints" / "step-45").exists()


def saved_last(run):
    return max((int(path.name[5:]) for path in checkpoint.steps(run / "checkpoints")), default=0)


def kill_in_a_write(data, cwd, ranks, rng):
    """While a checkpoint is half-written; that it was is seen from what is left."""
    for _ in range(10):
        process = start(data, cwd, "--save-every", "3", *RANKS[ranks], stdout=subprocess.DEVNULL)
        saved = rng.randrange(3)  # checkpoints before
        root, newest = cwd / "runs" / "cut" / "checkpoints", saved_last(cwd / "runs" / "cut") + 3 * saved
        wait_until((root / f".tmp-step-{newest + 3}").exists, process)
        time.sleep(rng.uniform(0, 0.03))
        kill(process)
        if unfinished(cwd):
            return
    raise AssertionError("no kill fell into a write")


def kill_in_a_start(data, cwd, ranks, rng):
    """Of a new run, and of one that goes on from a checkpoint: some moments after the command began."""
    begin = functools.partial(start, data, cwd, "--save-every", "3", *RANKS[ranks], stdout=subprocess.DEVNULL)

    def kill_soon():
        process = begin()
        time.sleep(rng.uniform(0, 6))
        kill(process)

    kill_soon()
    process = begin()
    wait_until(lambda: saved_last(cwd / "runs" / "cut") >= 3, process)
    kill(process)
    kill_soon()


EACH = (kill_sometime, kill_in_a_write, kill_in_a_start)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("how", "ranks", "seed"),
    [
        *[(kill_sometime, 1, 0), (kill_in_a_write, 1, 0), (kill_in_a_write, 2, 0)],
        *[pytest.param(how, ranks, seed, marks=pytest.mark.long) for how in EACH for ranks in (1, 2) for seed in range(1, 6)],
        pytest.param(kill_sometime, 4, 0, marks=pytest.mark.long),  # of more than two, the order of addition matters
    ],
)
def test_killed_equals_undisturbed(undisturbed, photo_set, tmp_path, how, ranks, seed):
    how(photo_set, tmp_path, ranks, random.Random(seed))
    train(photo_set, "cut", *STEPS, "--save-every", "3", *RANKS[ranks], cwd=tmp_path)
    run, whole = tmp_path / "runs" / "cut", undisturbed(ranks)
    assert losses(run) == losses(whole)
    assert same_weights(run, whole)
    assert not unfinished(tmp_path)


HURRIED = """
import itertools, os, types
from amdim import train
from amdim.engine import checkpoint_interval as saves
from amdim.errors import run_app

pace = itertools.count(step=60 if os.environ.get("RANK") == "0" else 6000)
saves.time = types.SimpleNamespace(monotonic=pace.__next__)
run_app(train.app, "train.py")
"""


def test_killed_between_saves_by_minutes_equals_undisturbed(undisturbed, photo_set, tmp_path):
    """Two ranks whose clocks differ: a minute a look on the first, which is the one that counts, and a hundred on the other."""
    script, run = tmp_path / "hurried.py", tmp_path / "runs" / "cut"
    script.write_text(HURRIED)
    arguments = command(
        script, "--data", photo_set, *SMALL, "--run", "cut", *STEPS, *RANKS[2], "--save-every", "7m", "--keep", "9"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: saved_last(run) >= 20, process)
    kill(process)
    steps = sorted(int(path.name[5:]) for path in checkpoint.steps(run / "checkpoints"))
    assert all(step >= 7 * number for number, step in enumerate(steps, 1)), steps  # asked for at 7, 14, …; saved soon after
    train(photo_set, "cut", *STEPS, *RANKS[2], cwd=tmp_path)
    assert losses(run) == losses(undisturbed(2))
    assert same_weights(run, undisturbed(2))


def in_hand(process, line="step 20"):
    """Reads its output up to a line."""
    for each in process.stdout:
        if each.startswith(line):
            return
    raise AssertionError(f"it ended before {line}")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
    ],
)
def test_a_signal_saves_and_the_same_command_goes_on(undisturbed, photo_set, tmp_path, number, code):
    process = start(photo_set, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    in_hand(process)
    os.kill(process.pid, number)
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == code, rest
    assert f"{signal.Signals(number).name}: finishing this step and saving" in errors
    assert "the same command goes on from there: python" in rest
    assert f"--data {photo_set} " in rest
    train(photo_set, "cut", *STEPS, cwd=tmp_path)
    assert same_weights(tmp_path / "runs" / "cut", undisturbed(1))


def wait_for_a_save(process, cwd):
    wait_until(lambda: saved_last(cwd / "runs" / "cut") > 0, process)


def test_ctrl_c_saves_though_tee_has_ended_by_it(undisturbed, photo_set, tmp_path):
    """Nobody reads its output any more."""
    process = start(photo_set, tmp_path, "--save-every", "5", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for_a_save(process, tmp_path)
    process.stdout.close()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert saved_last(tmp_path / "runs" / "cut") < 45
    train(photo_set, "cut", *STEPS, cwd=tmp_path)
    assert same_weights(tmp_path / "runs" / "cut", undisturbed(1))


def test_a_terminal_that_closes_saves(undisturbed, photo_set, tmp_path):
    """A real one, with the live panel in it: what is written after its end fails."""
    ours, its = pty.openpty()
    process = start(photo_set, tmp_path, "--save-every", "5", stdin=its, stdout=its, stderr=its, preexec_fn=take_terminal)
    os.close(its)
    reading = threading.Thread(target=lambda: wait_for_a_save(process, tmp_path))
    reading.start()
    while reading.is_alive():
        if select.select([ours], [], [], 0.05)[0]:
            os.read(ours, 4096)
    os.close(ours)  # which has the system send SIGHUP
    assert process.wait(timeout=120) == 129
    assert saved_last(tmp_path / "runs" / "cut") < 45
    train(photo_set, "cut", *STEPS, cwd=tmp_path)
    assert same_weights(tmp_path / "runs" / "cut", undisturbed(1))


def take_terminal():
    heed_hangups()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_log_on_a_full_disk_ends_nothing(undisturbed, photo_set, tmp_path):
    with Path("/dev/full").open("w") as full:  # every write fails for want of space
        process = start(photo_set, tmp_path, stdout=full, stderr=full)
        assert process.wait(timeout=120) == 0
    assert same_weights(tmp_path / "runs" / "cut", undisturbed(1))


def patched(change, data, cwd):
    """The command after a change to the program."""
    imports = "import time, torch; from amdim import train; from amdim.engine import checkpoint; from amdim.errors import run_app"
    program = f"{imports}; {change}"
    arguments = ("--data", str(data), *SMALL, "--run", "cut", *STEPS)
    return subprocess.Popen(
        [sys.executable, "-c", f"{program}; run_app(train.app, 'train.py')", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_ctrl_c_ends_it_at_once(photo_set, tmp_path):
    """While the first waits for a checkpoint to be written, which is held up here."""
    process = patched("checkpoint.write = lambda *_: time.sleep(600)", photo_set, tmp_path)
    in_hand(process)
    os.kill(process.pid, signal.SIGINT)
    assert "Ctrl-C ends it at once" in process.stderr.readline()
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT  # a shell says 130


def test_a_second_ctrl_c_ends_an_operation_that_does_not_return(photo_set, tmp_path):
    """One that holds Python up, as a wait for a GPU or a disk that hangs would: neither signal has been heard of when it ends."""
    hang = "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # half an hour without Python's lock
    process = patched(f"train.Trainer.update = lambda *_: (print('step 20', flush=True), {hang})", photo_set, tmp_path)
    in_hand(process)
    for _ in range(2):
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_a_disk_that_is_full_for_a_while(undisturbed, photo_set, tmp_path):
    """The limit on file sizes stands in for it: it fails the same write with the same kind of error."""
    process = start(photo_set, tmp_path, "--save-every", "5", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    in_hand(process, "saved step 5:")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    assert "TRAINING GOES ON" in process.stderr.readline()
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert same_weights(tmp_path / "runs" / "cut", undisturbed(1))


@pytest.mark.long
def test_a_disk_that_is_full_at_the_end(photo_set, tmp_path):
    process = start(photo_set, tmp_path, "--save-every", "25", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    in_hand(process, "saved step 25:")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "step-45: cannot be written" in errors
    assert "Traceback" not in errors
    assert final(tmp_path / "runs" / "cut").path.name == "step-25"


def test_a_shard_that_is_cut_short_under_a_run(undisturbed, photo_set, tmp_path):
    """One line with shard and key; what was saved is good, and once the shard is mended the run goes on from it."""
    data = shutil.copytree(photo_set, tmp_path / "set")
    process = start(data, tmp_path, "--save-every", "5", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    in_hand(process, "saved step 5:")
    shard = data / "train-00000.tar"
    whole = shard.read_bytes()
    os.truncate(shard, len(whole) // 2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = errors.splitlines()
    assert re.search(rf"{shard}: the image of sample \d+ is cut short; .*`python -m shards verify {data}`", line)
    assert final(tmp_path / "runs" / "cut").trainer["step"] % 5 == 0
    shard.write_bytes(whole)
    train(data, "cut", *STEPS, cwd=tmp_path)
    assert same_weights(tmp_path / "runs" / "cut", undisturbed(1))


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_loss_that_is_no_number_ends_it_at_its_step(photo_set, tmp_path, ranks):
    """Its rate is beyond all reason; what was saved before is good."""
    more = ("--lr", "1e30", "--save-every", "1", *RANKS[ranks])
    result = train(photo_set, "cut", *STEPS, *more, cwd=tmp_path, code=1)
    lines = [line for line in result.stderr.splitlines() if "not finite" in line]
    assert len(lines) == 1, result.stderr
    step = int(lines[0].partition("at step ")[2].partition(";")[0])
    assert 1 < step <= 5
    kept = checkpoint.latest(tmp_path / "runs" / "cut" / "checkpoints")
    assert kept is not None
    assert kept.trainer["step"] < step
    assert all(tensor.isfinite().all() for tensor in kept.weights.values())


def test_an_error_in_the_first_step_leaves_nothing_that_looks_like_a_run(photo_set, tmp_path):
    train(photo_set, "cut", *STEPS, "--lr", "1e38", cwd=tmp_path, code=1)
    left = sorted(path.name for path in (tmp_path / "runs" / "cut").iterdir())
    assert left == [".lock"]


def test_out_of_memory_is_one_line(photo_set, tmp_path):
    """The allocation is this test's; the error is the allocator's own."""
    result = patched("train.Trainer.update = lambda *_: torch.empty(2**60, dtype=torch.uint8)", photo_set, tmp_path)
    _, errors = result.communicate(timeout=120)
    assert result.returncode == 1
    (line,) = errors.splitlines()
    assert "out of memory: 1073741824.00 GiB more were asked for" in line
    assert "try --batch-size 8 (it is 16), or --checkpoint-activations, or a smaller --preset" in line
