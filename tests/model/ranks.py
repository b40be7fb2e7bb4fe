"""Runs a function in W processes that talk over gloo, and hands back what each returned."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.forked import server


def in_ranks(W: int, function: Callable[..., Any], *args: Any, directory: Path) -> list[Any]:
    """What ``function(*args)`` returns in each of W ranks; it and its results are sent through files."""
    server()  # that ranks are forked from, with their imports made
    mp.start_processes(_one, (W, free_port(), function, args, directory), nprocs=W, start_method="forkserver")
    return [torch.load(directory / f"{rank}.pt", weights_only=False) for rank in range(W)]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _one(rank: int, W: int, port: int, function: Callable[..., Any], args: tuple[Any, ...], directory: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=W)
    try:
        torch.save(function(*args), directory / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
