"""A command of ours as a process of its own that need not import anything: it is forked from a server that has.

Imports (torch, its compiler, DALI) take some seconds of a core, and the tests run a hundred commands. The server is Python's own
"forkserver": one a test process, started with the first command; nothing has used what it imported. Commands that
are to be signalled or read while they run, and all ranks, are started the way a user starts them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import sys
import tempfile
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
IMPORTED = ["train", "eval", "torch._dynamo", "matplotlib.pyplot", "sklearn.cluster", "tests.forked"]
TIMEOUT = 280  # seconds; a test has 300


class Completed(NamedTuple):
    """What ``subprocess.run`` would tell."""

    returncode: int
    stdout: str
    stderr: str


def run_forked(program: str, arguments: list[str], cwd: Path) -> Completed:
    """Runs ``python program arguments`` in ``cwd`` to its end; ``program`` is a file of the repository's top."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        streams = tuple(multiprocessing.reduction.DupFd(file.fileno()) for file in (out, err))
        process = server().Process(target=become, args=(program, arguments, cwd, streams))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{program} {' '.join(arguments)}: still runs after {TIMEOUT} s")
        for file in (out, err):
            file.seek(0)
        return Completed(process.exitcode, out.read(), err.read())


@cache
def server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with contextlib.chdir(ROOT):  # from where it imports
        forkserver.ensure_running()
    return context


def become(program: str, arguments: list[str], cwd: Path, streams: tuple) -> None:
    """In the new process: what the interpreter does for a command."""
    for number, stream in enumerate(streams, 1):
        os.dup2(stream.detach(), number)
    os.chdir(cwd)
    sys.argv = [str(ROOT / program), *arguments]
    sys.path[0] = str(ROOT)
    runpy.run_path(sys.argv[0], run_name="__main__")
