"""How ranks meet and how they end, as far as one process can show it; several processes: tests/test_lost_ranks.py."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from amdim.engine.distributed import process_group
from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.distributed.rank_coordinator import RankCoordinator


@pytest.fixture
def asked(monkeypatch):
    """What torch was asked for."""
    calls = []
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: calls.append((backend, options)))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set_device", device)))
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    return calls


def test_gpus_speak_nccl_each_through_its_own(asked):
    device, store = torch.device("cuda", 3), dist.HashStore()
    process_group.start(DistEnv(3, 8, device), store, timeout=600)
    (_, chosen), (backend, options) = asked
    assert chosen == device
    assert backend == "nccl"
    assert (options["store"], options["rank"], options["world_size"], options["device_id"]) == (store, 3, 8, device)
    assert options["timeout"] > timedelta(seconds=600), "the ranks' own time-out says who is missing, and has to come first"
    assert "GLOO_SOCKET_IFNAME" not in os.environ


@pytest.mark.parametrize(("here", "interface"), [(4, "lo"), (2, None)])
def test_cpus_speak_gloo_over_the_loopback_where_all_are_on_one_machine(asked, here, interface):
    process_group.start(DistEnv(1, 4, torch.device("cpu"), here=here), dist.HashStore(), timeout=600)
    ((backend, options),) = asked
    assert backend == "gloo"
    assert "device_id" not in options
    assert os.environ.get("GLOO_SOCKET_IFNAME") == interface


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/pytorch/third_party/gloo/x.cc:81] Timed out waiting 1000ms for recv operation"), True),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:3699, unhandled system error"), True),
        (RuntimeError("Connection closed by peer [127.0.0.1]:4242"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (dist.DistNetworkError("the store is gone"), True),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (ValueError("gloo"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_is_an_error_of_another_rank_or_a_gpu(error, lost):
    assert process_group.is_lost(error) is lost


class Clock:
    """Time that passes only where somebody sleeps."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [("done/1", 0, 0), ("error", 0, 0), (None, process_group.SILENCE, process_group.SILENCE + 1), ("beats", 60, 61)],
)
def test_nobody_waits_for_a_rank_that_has_failed_or_is_silent(said, least, most, monkeypatch):
    """Rank 1 is done, or has failed, or is heard of no more; or it goes on to be heard of, and is waited for for a minute."""
    store, waiting, clock = dist.HashStore(), RankCoordinator(0, 2), Clock()
    monkeypatch.setattr(process_group, "time", clock)
    monkeypatch.setattr(waiting, "heard", lambda: {0: ["1", "5"], 1: [str(clock.now) if said == "beats" else "1", "5"]})
    store.set("done/0", "")
    if said in ("done/1", "error"):
        store.set(said, "")
    process_group.wait_for_all(waiting, store, "done", seconds=60)
    assert least <= clock.now <= most
