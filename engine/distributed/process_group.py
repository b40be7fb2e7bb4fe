"""The ranks' process group: how they meet, and how an error on one of them becomes one line and one exit code."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from amdim.engine.distributed import launcher, slurm
from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.distributed.launcher import LOST, STOP_SECONDS
from amdim.engine.distributed.rank_coordinator import GONE, RankCoordinator
from amdim.errors import GPU_FAULTS, UserError, blurt, explain, first_line, flush_output, program

SILENCE = 10  # seconds without a beat, of which there are four a second, after which nobody waits for a rank's leave
MOMENT = 1  # seconds that rank 0, which may hold the store, leaves others to see there that their common error has been printed
ADVICE = "see that every machine runs the same command (under SLURM: srun), or give a longer --timeout"


@contextmanager
def joined(where: DistEnv, timeout: float) -> Iterator[RankCoordinator]:
    """The process group of all ranks, for as long as the block lasts; nothing where there is one rank.

    An error in the block ends the process: other ranks may wait for this one's half of a collective, and a tidy exit for them.

    Args:
        where: this process.
        timeout: seconds to wait for a rank, at the start and in a step.

    Raises:
        UserError: rank 0 cannot be reached.
    """
    if where.world == 1:
        yield RankCoordinator()
        return
    torch.set_num_threads(slurm.whole("OMP_NUM_THREADS", where.threads))
    common = connect(where, timeout)
    name = name_of_start(where, common, timeout)
    store = dist.PrefixStore(f"start/{name}", common)
    peers = RankCoordinator(where.rank, where.world, store.clone(), timeout)  # type: ignore[attr-defined]
    peers.rest()  # to meet and to start have time-outs of their own
    try:
        meet(where, name, common, store, timeout)
        start(where, dist.PrefixStore("group", store), timeout)
        peers.moved = time.monotonic()
        yield peers
        peers.rest()
        part(peers, store)
    except BaseException as error:
        end(peers, error)
    peers.leave()
    dist.destroy_process_group()


def connect(where: DistEnv, timeout: float) -> dist.Store:
    """The store that torchrun's agent or, under SLURM, rank 0 holds."""
    address, port = slurm.address()
    address, port = os.environ.get("MASTER_ADDR", address), slurm.whole("MASTER_PORT", port)
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = where.rank == 0 and not agent
    if not serves:
        reach(where.rank, address, port, timeout)
    try:
        return dist.TCPStore(address, port, where.world, serves, timedelta(seconds=timeout), wait_for_workers=False)
    except dist.DistError as error:
        raise UserError(
            f"rank {where.rank} cannot meet the others at {address}:{port} ({first_line(error)}); try another MASTER_PORT"
        ) from error


def reach(rank: int, address: str, port: int, timeout: float) -> None:
    """Waits until something listens there; the store's own waiting ends in a page of C++."""
    until = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((address, port), max(0.1, until - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                host = socket.gethostname()
                raise UserError(
                    f"rank {rank} on {host} cannot reach rank 0 at {address}:{port} within {timeout:g} s ({error}); see that "
                    "it was started and that no firewall stands between, or give a longer --timeout"
                ) from error
            time.sleep(0.2)


def name_of_start(where: DistEnv, common: dist.Store, timeout: float) -> str:
    """What rank 0 calls this start of the ranks.

    An agent may keep its store over restarts, and agents of several machines do not count these alike. So rank 0 makes a name up,
    and ``meet`` tells it to every rank that knocks with a word of its own.

    Raises:
        UserError: rank 0 does not come.
    """
    word, own = uuid.uuid4().hex, f"rank {where.rank} on {socket.gethostname()}"
    if where.rank == 0:
        return word
    until = time.monotonic() + timeout
    try:
        common.set(f"knock/{where.rank}", word)
        while not common.check([f"name/{word}"]):
            if time.monotonic() > until:
                raise UserError(f"{own}: rank 0 of {where.world} did not come within {timeout:g} s; {ADVICE}")
            time.sleep(0.05)
        return common.get(f"name/{word}").decode()
    except dist.DistError as error:
        raise UserError(f"{own}: {GONE}") from error


def meet(where: DistEnv, name: str, common: dist.Store, store: dist.Store, timeout: float) -> None:
    """Waits until all ranks are there.

    Raises:
        UserError: some do not come; names them.
    """
    store.set(f"here/{where.rank}", socket.gethostname())
    missing, until = list(range(where.world)), time.monotonic() + timeout
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        if where.rank == 0:  # a word of an earlier start may still stand there: its rank is told in vain
            for rank in missing:
                if common.check([f"knock/{rank}"]):
                    common.set(f"name/{common.get(f'knock/{rank}').decode()}", name)
        if time.monotonic() > until:
            names = ", ".join(map(str, missing))
            raise UserError(
                f"rank{'s' * (len(missing) > 1)} {names} of {where.world} did not come within {timeout:g} s; {ADVICE}"
            )
        time.sleep(0.05)


def start(where: DistEnv, store: dist.Store, timeout: float) -> None:
    """NCCL on GPUs, gloo on CPUs."""
    options: dict[str, Any] = {"store": store, "rank": where.rank, "world_size": where.world}
    options["timeout"] = timedelta(seconds=timeout + 60)  # longer than the ranks' own, which says who is missing
    if where.device.type == "cuda":
        torch.cuda.set_device(where.device)
        dist.init_process_group("nccl", device_id=where.device, **options)
        return
    if where.here == where.world:  # whatever this machine calls itself, its ranks find one another
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", **options)


def part(peers: RankCoordinator, store: dist.Store) -> None:
    """All leave together, and rank 0, which may hold the store, last.

    Rank 0 may be saving, and once one rank has ended with the code of a signal, an agent gives the others half a minute.
    """
    store.set(f"done/{peers.rank}", "")
    wait_for_all(peers, store, "done", STOP_SECONDS)
    store.set(f"left/{peers.rank}", "")
    if peers.rank == 0:
        wait_for_all(peers, store, "left", 30)


def wait_for_all(peers: RankCoordinator, store: dist.Store, word: str, seconds: float) -> None:
    """Until every rank has said ``word``, a rank that has not is silent, one has failed, or so many seconds are over."""
    began = looked = time.monotonic()
    heard = peers.heard()
    while missing := [rank for rank in heard if not store.check([f"{word}/{rank}"])]:
        now = time.monotonic()
        if now - began > seconds or store.check(["error"]):
            return
        if now - looked > SILENCE:
            before, heard, looked = heard, peers.heard(), now
            if any(heard[rank] == before[rank] for rank in missing):
                return
        time.sleep(0.05)


def end(peers: RankCoordinator, error: BaseException) -> NoReturn:
    """Prints the error if no other rank has printed one, and ends the process."""
    text, code = "", 130
    if lost := is_lost(error):
        code, text = LOST, lost_sentence(peers, error)
    elif isinstance(error, Exception):
        text, code = explain(error)
    if text and peers.claim(text):
        blurt(f"{program()}: {' '.join(text.splitlines())}\n")
    if "--debug" in sys.argv:
        blurt(f"rank {peers.rank}{' lost another' if lost else ''}:\n{traceback.format_exc()}\n")
    flush_output()
    if not lost:
        launcher.report(code)
    if text and peers.rank == 0:
        time.sleep(MOMENT)
    os._exit(code)


def is_lost(error: BaseException) -> bool:
    """Whether a collective failed, which means another rank, or this rank's GPU did; either may do on another try."""
    words = ("gloo", "NCCL", "onnection closed", "onnection reset", *GPU_FAULTS)
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def lost_sentence(peers: RankCoordinator, error: BaseException) -> str:
    """Who is gone, or else what this rank's error says; empty where it has been told to end, and whoever told it knows."""
    try:
        text = peers.silence(first_line(error))
    except dist.DistError:
        text = f"rank {peers.rank}: {GONE}"
    return "" if peers.stop and peers.stop.code else text
