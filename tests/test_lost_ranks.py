"""Ranks that are killed, told to stop, fall silent, fail or never come: what is printed, how it exits, and what goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amdim.engine import checkpoint
from tests.commands import ENVIRONMENT, difference, losses, rows, train
from tests.commands import command as one_rank
from tests.model.ranks import free_port

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
STEPS = ("--steps", "24", "--save-every", "5")


@pytest.fixture(scope="module")
def undisturbed(photo_set, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("undisturbed")
    train(photo_set, "whole", *STEPS, "--procs", "2", cwd=cwd)
    return cwd / "runs" / "whole"


def two_ranks(data, cwd, *more):
    """The launcher of two ranks that are past their first checkpoint, and the ranks' process numbers."""
    command = one_rank(data, "cut", *STEPS, "--procs", "2", *more)
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while not checkpoint.steps(cwd / "runs" / "cut" / "checkpoints"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process, children(process.pid)


def children(pid):
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def gone(pids):
    """Ended, if not yet buried by their new parent."""
    files = [Path(f"/proc/{pid}/stat") for pid in pids]
    return all(not file.exists() or file.read_text().rpartition(")")[2].split()[0] == "Z" for file in files)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_killed_rank_is_started_again_and_joins_the_undisturbed_curve(undisturbed, photo_set, tmp_path, rank):
    process, ranks = two_ranks(photo_set, tmp_path)
    os.kill(ranks[rank], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    (line,) = err.splitlines()
    assert line.startswith(f"warning: rank {rank} was ended by SIGKILL")
    assert "restart 1 of 3" in line
    assert "continuing" in out
    assert losses(tmp_path / "runs" / "cut").equal(losses(undisturbed))


@pytest.mark.long
def test_a_rank_that_is_always_killed_is_given_up(photo_set, tmp_path):
    process, ranks = two_ranks(photo_set, tmp_path, "--max-restarts", "0")
    os.kill(ranks[1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith("train.py: rank 1 was ended by SIGKILL")
    assert line.endswith("the same command goes on from the last checkpoint")


@pytest.mark.parametrize(
    ("number", "code", "to"),
    [
        pytest.param(signal.SIGTERM, 143, "launcher", marks=pytest.mark.long),
        (signal.SIGTERM, 143, "rank 1"),
        pytest.param(signal.SIGINT, 130, "launcher", marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 130, "rank 1", marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 130, "all", marks=pytest.mark.long),  # as pkill does
    ],
)
def test_a_signal_stops_all_ranks_after_the_same_step(undisturbed, photo_set, tmp_path, number, code, to):
    process, ranks = two_ranks(photo_set, tmp_path)
    for pid in {"launcher": [process.pid], "rank 1": ranks[1:], "all": [process.pid, *ranks]}[to]:
        os.kill(pid, number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code, out
    assert out.count("stopped and saved at step") == 1
    assert gone(ranks)
    train(photo_set, "cut", *STEPS, "--procs", "2", cwd=tmp_path)
    assert losses(tmp_path / "runs" / "cut").equal(losses(undisturbed))


@pytest.mark.long
def test_a_rank_that_is_lost_while_all_stop_is_told_of(photo_set, tmp_path):
    process, ranks = two_ranks(photo_set, tmp_path)
    os.kill(ranks[1], signal.SIGSTOP)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(1)
    os.kill(ranks[1], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    announced, lost = err.splitlines()
    assert announced.startswith("SIGTERM: finishing this step and saving")
    assert lost.startswith("warning: the ranks ended before they had saved; the same command goes on from the last checkpoint")


@pytest.mark.long
def test_a_second_ctrl_c_ends_at_once(photo_set, tmp_path):
    process, ranks = two_ranks(photo_set, tmp_path)
    os.kill(ranks[0], signal.SIGSTOP)  # which would take its time to finish a step
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.5)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert gone(ranks)


@pytest.mark.long
def test_no_rank_outlives_its_launcher(photo_set, tmp_path):
    process, ranks = two_ranks(photo_set, tmp_path)
    process.kill()
    _, err = process.communicate(timeout=60)  # until the last of them has closed it
    assert gone(ranks)
    assert len(err.splitlines()) == 1, err


@pytest.mark.long
def test_a_silent_rank_is_named(photo_set, tmp_path):
    """The agent gives a stopped process half a minute to end."""
    process, ranks = two_ranks(photo_set, tmp_path, "--timeout", "20", "--max-restarts", "0")
    os.kill(ranks[1], signal.SIGSTOP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    first, last = err.splitlines()
    assert first.startswith("train.py: rank 0 waits at step ")
    assert "for rank 1 (last heard of after step" in first
    assert "does not answer" in last


@pytest.mark.parametrize(("present", "says"), [(0, "rank 1 of 2 did not come within 3 s"), (1, "rank 1 on")])
def test_a_rank_that_never_comes_is_named(photo_set, tmp_path, present, says):
    """Under SLURM, where rank 0 holds the store."""
    step = {"SLURM_PROCID": str(present), "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    step |= {"SLURM_STEP_NODELIST": "127.0.0.1", "MASTER_PORT": str(free_port()), "SLURM_NODEID": str(present)}
    command = one_rank(photo_set, "alone", "--steps", "2", "--timeout", "3")
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT | step
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert says in line


def slurm_tasks(data, cwd, *more, second=()):
    """Two tasks of one step, as srun would start them; the second may have other options."""
    step = {"SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "localhost"}
    step |= {"MASTER_PORT": str(free_port())}
    owns = [ENVIRONMENT | step | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in ("0", "1")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    each = more, (*more, *second)
    return [
        subprocess.Popen(one_rank(data, "cut", *own_more), cwd=cwd, env=own, **pipes)
        for own, own_more in zip(owns, each, strict=True)
    ]


def ended(tasks):
    """Their exit codes, and what each printed."""
    said = [task.communicate(timeout=120)[0] for task in tasks]
    return [task.returncode for task in tasks], said


def test_two_slurm_tasks_train_together(photo_set, tmp_path):
    codes, said = ended(slurm_tasks(photo_set, tmp_path, "--steps", "3"))
    assert codes == [0, 0], said
    assert "2 over gloo" in said[0]
    assert said[1] == ""


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (("--lr", "0.02", "--seed", "5"), "ranks 0 and 1 differ in seed, lr; start all with the same command, code and data"),
        pytest.param(("--amp", "bf16"), "ranks 0 and 1 differ in amp, precision; start all with", marks=pytest.mark.long),
        pytest.param(("--preset", "parts"), "ranks 0 and 1 differ in preset, views, recipe, mixture", marks=pytest.mark.long),
    ],
)
def test_ranks_that_were_started_otherwise_are_refused(photo_set, tmp_path, second, says):
    codes, said = ended(slurm_tasks(photo_set, tmp_path, "--steps", "3", second=second))
    assert codes == [2, 2], said
    assert says in "".join(said)
    assert len("".join(said).splitlines()) == 1
    assert not checkpoint.steps(tmp_path / "runs" / "cut" / "checkpoints")


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_frozen_rank_ends_the_others(photo_set, tmp_path, rank):
    """Rank 0 holds the store, which then keeps whoever asks it; of another rank the store can still say who it is."""
    tasks = slurm_tasks(photo_set, tmp_path, "--steps", "4000", "--save-every", "5", "--timeout", "30")
    try:
        while not checkpoint.steps(tmp_path / "runs" / "cut" / "checkpoints"):
            assert [task.poll() for task in tasks] == [None, None]
            time.sleep(0.05)
        tasks[rank].send_signal(signal.SIGSTOP)
        said = tasks[1 - rank].communicate(timeout=120)[0]
        assert tasks[1 - rank].returncode == 75
        assert ("the store at which the ranks meet does not answer" if rank == 0 else "for rank 1 (last heard of") in said
    finally:
        for task in tasks:
            task.kill()
            task.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.long)])
def test_preemption_by_slurm_stops_all_tasks_after_the_same_step(undisturbed, photo_set, tmp_path, number):
    """Every task of the step gets the signal, a moment apart."""
    tasks = slurm_tasks(photo_set, tmp_path, *STEPS)
    while not checkpoint.steps(tmp_path / "runs" / "cut" / "checkpoints"):
        assert [task.poll() for task in tasks] == [None, None]
        time.sleep(0.05)
    for task in tasks:
        task.send_signal(number)
        time.sleep(0.1)
    codes, said = ended(tasks)
    assert codes == [128 + number] * 2, said
    assert "stopped and saved at step" in said[0]
    assert "the same command goes on from there, with torchrun or srun as before" in said[0]
    assert said[1] == ""
    train(photo_set, "cut", *STEPS, "--procs", "2", cwd=tmp_path)
    assert losses(tmp_path / "runs" / "cut").equal(losses(undisturbed))


def test_an_error_on_one_rank_is_one_line_and_not_tried_again(photo_set, tmp_path):
    """Only rank 1 reads the damaged image."""
    data = tmp_path / "photos"
    shutil.copytree(photo_set, data)
    damage_what_only_rank_1_reads(data)
    result = train(data, "damaged", "--steps", "1", "--procs", "2", cwd=tmp_path, code=1)
    (line,) = result.stderr.splitlines()
    assert line.startswith("train.py: ")
    assert "has changed since the set was built" in line


def damage_what_only_rank_1_reads(data):
    from amdim.pipeline import RECIPES, TwoViewLoader

    loader = TwoViewLoader(data, ["train"], RECIPES["shapes32"], 16, rank=1, world=2)
    sample = loader.samples(0, 0)[0]
    shard = int((loader.store.starts <= sample).sum()) - 1
    with (data / loader.store.shards[shard].file).open("r+b") as file:
        file.seek(int(loader.store.offset[sample]) + 30)
        file.write(b"\xff\x00\xff\x00")


@pytest.mark.long
def test_torchrun_starts_ranks_and_starts_them_again(undisturbed, photo_set, tmp_path):
    command = [*TORCHRUN, "--max-restarts", "1", "--", *one_rank(photo_set, "cut", *STEPS)[1:]]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    ) as process:
        while not checkpoint.steps(tmp_path / "runs" / "cut" / "checkpoints"):
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(children(process.pid)[1], signal.SIGKILL)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert "continuing" in out
    assert [row["step"] for row in rows(tmp_path / "runs" / "cut")] == [20, 24]
    assert difference(tmp_path / "runs" / "cut", undisturbed) == 0


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_torchrun_passes_a_signal_on_and_the_same_command_goes_on(undisturbed, photo_set, tmp_path, number):
    """With the options of docs/scaling.md."""
    options = ("--shutdown-timeout", "600", "--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")
    command = [*TORCHRUN, *options, "--", *one_rank(photo_set, "cut", *STEPS)[1:]]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, **streams) as process:
        while not checkpoint.steps(tmp_path / "runs" / "cut" / "checkpoints"):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        out, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopped and saved at step" in out
    assert "the same command goes on from there, with torchrun or srun as before" in out
    subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=120, capture_output=True)
    assert losses(tmp_path / "runs" / "cut").equal(losses(undisturbed))


@pytest.mark.parametrize("wrong", [("--lr", "nan"), pytest.param(("--batch-size", "15"), marks=pytest.mark.long)])
def test_under_torchrun_too_wrong_usage_is_one_line(photo_set, tmp_path, wrong):
    command = [*TORCHRUN, "--", *one_rank(photo_set, "wrong", "--steps", "1", *wrong)[1:]]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT)
    assert result.stderr.count("train.py: ") == 1, result.stderr
