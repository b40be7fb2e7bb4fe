"""Two hosts: network namespaces with an address each and a cable between them, where torchrun starts the ranks of one run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amdim.engine import checkpoint
from tests.commands import ENVIRONMENT, ROUNDING, command, difference, train

LONG = ("--steps", "60", "--save-every", "5", "--timeout", "60")
HOSTS = {"amdim-a": "10.213.7.1", "amdim-b": "10.213.7.2"}


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


@contextlib.contextmanager
def two_hosts():
    """Their names; skips where namespaces may not be made."""
    if not shutil.which("ip"):
        pytest.skip("there is no ip command (iproute2) to make network namespaces with")
    names = [f"{name}-{os.getpid()}" for name in HOSTS]
    try:
        for name in names:
            if (made := ip("netns", "add", name, check=False)).returncode:
                pytest.skip(f"network namespaces may not be made here: {made.stderr.strip()}")
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, HOSTS.values(), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            for link in ("lo", "cable"):
                ip("-n", name, "link", "set", link, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name, check=False)


def torchrun(host, node, cwd, *arguments):
    """The same command on either host, as docs/scaling.md has it; gloo must be told which network is meant."""
    (first, own) = (list(HOSTS.values())[i] for i in (0, node))
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "test"]
    agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{first}:29400", "--rdzv-conf", f"is_host={1 - node}"]
    agent += ["--local-addr", own, "--max-restarts", "3", "--"]
    environment = ENVIRONMENT | {"GLOO_SOCKET_IFNAME": "cable"}
    words = ["ip", "netns", "exec", host, *agent, *arguments]
    return subprocess.Popen(words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def rank_below(pid):
    """The training process that an agent started."""
    children = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
    return next((each for each in children if "train.py" in Path(f"/proc/{each}/cmdline").read_text()), None)


@pytest.fixture(scope="module")
def begun(photo_set, tmp_path_factory):
    """A run whose checkpoint of step 10 is its last, though it is to take 60."""
    cwd = tmp_path_factory.mktemp("begun")
    train(photo_set, "cut", *LONG, "--keep", "20", cwd=cwd)
    checkpoint.forget_after(cwd / "runs" / "cut" / "checkpoints", 10)
    return cwd / "runs"


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("node", [0, 1])
def test_a_rank_that_is_lost_on_one_host_is_started_again_on_both(begun, photo_set, tmp_path, node):
    """Their agents do not count restarts alike. --resume says where the command began, and not where it goes on."""
    saved = shutil.copytree(begun, tmp_path / "runs") / "cut" / "checkpoints"
    arguments = command(photo_set, "cut", *LONG, "--resume", "runs/cut/checkpoints/step-10")[1:]
    with two_hosts() as hosts:
        agents = [torchrun(host, number, tmp_path, *arguments) for number, host in enumerate(hosts)]
        while not (saved / "step-20").exists():
            assert [agent.poll() for agent in agents] == [None, None]
            time.sleep(0.01)
        os.kill(rank_below(agents[node].pid), signal.SIGKILL)
        said = [agent.communicate(timeout=200)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    first, again = (int(step) for each in said for step in re.findall(r"continuing runs/cut/checkpoints/step-(\d+)", each))
    assert first == 10
    assert again >= 20


@pytest.mark.long
@pytest.mark.timeout(200)
def test_two_hosts_train_together(photo_set, tmp_path):
    with two_hosts() as hosts:
        arguments = command(photo_set, "both", "--steps", "21")[1:]
        agents = [torchrun(host, node, tmp_path, *arguments) for node, host in enumerate(hosts)]
        said = [agent.communicate(timeout=150)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert sum("2 over gloo, 1 of them on this machine" in each for each in said) == 1
    train(photo_set, "alone", "--steps", "21", cwd=tmp_path)
    assert difference(tmp_path / "runs" / "both", tmp_path / "runs" / "alone") < ROUNDING
