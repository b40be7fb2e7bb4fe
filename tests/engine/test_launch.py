"""Which ranks a process is among, from its options and from what torchrun or SLURM put into its environment."""

import pytest
import torch

from amdim.engine.distributed import dist_env, slurm
from amdim.engine.distributed.dist_env import find_dist_env
from amdim.engine.distributed.launcher import LOST, restart_decision
from amdim.errors import UsageError

CPU = torch.device("cpu")
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "node[003-004]",
}


@pytest.fixture
def environment(monkeypatch):
    """Sets variables, after all that a launcher could have set are gone."""
    for name in (*TORCHRUN, *SRUN, "SLURM_STEP_NUM_TASKS", "SLURM_JOB_NODELIST", "SLURM_TASKS_PER_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def put(variables, gpus=0):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def test_alone(environment):
    environment({})
    assert find_dist_env(None)[:3] == find_dist_env(0)[:3] == (0, 1, CPU)
    assert find_dist_env(0).started
    environment({}, gpus=4)
    assert find_dist_env(None).device == torch.device("cuda", 0)
    assert find_dist_env(0).device == CPU


@pytest.mark.parametrize(("gpus", "procs", "found"), [(8, None, 8), (0, 8, 0), (None, 8, 0), (0, 8, 2)])
def test_ranks_that_this_process_is_to_start(environment, gpus, procs, found):
    environment({}, found)
    where = find_dist_env(gpus, procs)
    assert (where.world, where.here, where.started) == (8, 8, False)
    assert where.device.type == ("cuda" if gpus else "cpu")


@pytest.mark.parametrize(
    "variables", [TORCHRUN | {"RANK": "x"}, SRUN | {"SLURM_STEP_NUM_TASKS": "many"}, SRUN | {"SLURM_NODEID": ""}]
)
def test_a_variable_that_is_no_number_is_named(environment, variables):
    environment(variables)
    with pytest.raises(UsageError, match=r"(RANK=x|SLURM_STEP_NUM_TASKS=many|SLURM_NODEID=): is no whole number"):
        find_dist_env(None)
    dist_env.let_the_first_speak()  # as the error is about to be printed


def test_slurm_that_lists_no_tasks_has_all_of_them_here(environment):
    environment(SRUN | {"SLURM_STEP_TASKS_PER_NODE": ""})
    assert slurm.ranks() == (5, 8, 1, 8)


def test_slurm_with_uneven_machines_and_several_steps(environment):
    for listed, node, here in (("4(x2),3", "2", 3), ("3,5(x2)", "2", 5), ("3,5(x2)", "0", 3)):
        environment(SRUN | {"SLURM_STEP_TASKS_PER_NODE": listed, "SLURM_NODEID": node})
        assert slurm.ranks() == (5, 8, 1, here)
    assert slurm.address() == ("node003", 20077)
    environment(SRUN | {"SLURM_STEP_ID": "3"})  # of the same job, at the same time
    assert slurm.address() == ("node003", 20380)


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN])
def test_ranks_that_a_launcher_started(environment, variables):
    environment(variables, gpus=4)
    where = find_dist_env(None)
    assert where == (5, 8, torch.device("cuda", 1), 1, 4, True)
    assert find_dist_env(4) == find_dist_env(8) == where
    assert find_dist_env(0).device == CPU


def test_a_gpu_that_the_launcher_shows_alone(environment):
    environment(SRUN | {"CUDA_VISIBLE_DEVICES": "1"}, gpus=1)
    assert find_dist_env(None).device == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("variables", "options", "found", "says"),
    [
        ({}, (9,), 8, "--gpus 9: this machine has 8 CUDA GPUs; go on with --gpus 8"),
        ({}, (2,), 0, "--gpus 2: this machine has no CUDA GPUs"),
        ({}, (-1,), 0, "--gpus -1"),
        ({}, (None, 4), 8, "--procs 4: is for the CPU"),
        ({}, (2, 4), 8, "--procs 4: is for the CPU"),
        (TORCHRUN, (2,), 8, "--gpus 2: torchrun started 4 ranks on this machine"),
        (TORCHRUN, (0, 3), 0, "--procs 3: torchrun started 4 ranks on this machine"),
        (TORCHRUN, (None,), 2, "torchrun started 4 ranks on this machine, which has 2 CUDA GPUs"),
    ],
)
def test_what_does_not_fit_is_named(environment, variables, options, found, says):
    environment(variables, found)
    with pytest.raises(UsageError, match=says):
        find_dist_env(*options)


def test_cores_are_shared(environment, monkeypatch):
    environment({})
    monkeypatch.setattr(dist_env.os, "sched_getaffinity", lambda _: range(16))
    assert find_dist_env(0, 4).threads == 4
    assert find_dist_env(0, 64).threads == 1
    assert find_dist_env(0).threads == 16


@pytest.mark.parametrize(("cores", "threads"), [(8, 8), (64, 8), (4, 4)])
def test_cores_of_a_slurm_task_are_its_own(environment, monkeypatch, cores, threads):
    """Bound to its eight, not bound at all, or on a smaller machine."""
    environment(SRUN | {"SLURM_CPUS_PER_TASK": "8"})
    monkeypatch.setattr(dist_env.os, "sched_getaffinity", lambda _: range(cores))
    assert find_dist_env(0).threads == threads
    environment(SRUN | TORCHRUN | {"SLURM_CPUS_PER_TASK": "8"})
    assert find_dist_env(0).threads == max(1, cores // 4)


def test_a_batch_script_is_no_rank(environment):
    environment({name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"})
    assert dist_env.given() is None
    environment(SRUN | {"SLURM_STEP_NUM_TASKS": "1"})
    assert dist_env.given() is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node3", "node3"),
        ("node3,node4", "node3"),
        ("node[003-004,007],other", "node003"),
        ("node[7,9-11]-ib", "node7-ib"),
        ("rack[1-2]n[03-04]", "rack1n03"),
    ],
)
def test_first_node(nodes, first):
    assert slurm.first_node(nodes) == first


def test_where_slurm_ranks_meet(environment):
    environment(SRUN)
    assert slurm.address() == ("node003", 20077)


@pytest.mark.parametrize(
    ("codes", "code", "lost"),
    [
        ({0: 143, 1: 2}, 2, None),
        ({1: LOST, 0: 1}, 1, None),
        ({0: 143, 1: 143}, 143, None),
        ({1: -9, 0: 143}, 1, "rank 1 was ended by SIGKILL"),
        ({2: -11, 0: 143, 1: -15}, 1, "rank 2 was ended by SIGSEGV"),
        ({0: LOST, 1: -9}, 1, "a rank does not answer"),
        ({0: -15, 1: -15}, 143, None),
    ],
)
def test_what_is_final_and_what_is_started_again(codes, code, lost):
    found = restart_decision(codes)
    assert found[0] == code
    assert found[1] is None if lost is None else found[1].startswith(lost)
