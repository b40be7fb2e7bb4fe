"""Errors for people: one line that names the thing, says what is wrong and what to type next.

Raise ``UsageError`` for a wrong request (exit code 2) and ``UserError`` for one that failed (exit code 1); ``run_app`` turns
them, and whatever else goes wrong, into that line. ``--debug`` anywhere on the command line brings the traceback back.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer

SHORTAGES = (
    "an't allocate ",
    "out of memory",
    "CUDA allocation",
    "STATUS_ALLOC_FAILED",
)  # torch's, CUDA's, DALI's, its libraries'
TO_DO = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room on that disk, or name a place on another one")
TO_DO |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name another place, or have its owner let you in")
GPU_FAULTS = ("CUDA error", "CUDA runtime", "CUDA driver")


class UserError(Exception):
    """Something the user can mend; its text is the whole message."""

    exit_code = 1


class UsageError(UserError):
    """The request itself was wrong."""

    exit_code = 2


def installed() -> bool:
    """Return whether this process is a command of the installed package."""
    return program().startswith("amdim-")


def as_typed(text: str) -> str:
    """Return ``text`` with its commands as they are typed here: those of an installed package, or those of a checkout."""
    if not installed():
        return text
    return re.sub(r"python (train|eval)\.py|python -m (shards)\b", lambda found: f"amdim-{found[1] or found[2]}", text)


def run_app(app: typer.Typer, program: str, before_failing: Callable[[], None] = lambda: None) -> NoReturn:
    """Runs a typer application; exits 0 done, 1 failed, 2 wrong usage. Typer itself makes Ctrl-C exit 130."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal or log that has no arrows is no reason to end
    name = Path(sys.argv[0]).name if installed() else program
    try:
        code = typer.main.get_command(app).main(prog_name=name, standalone_mode=False)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        with suppress(KeyboardInterrupt):
            before_failing()
        fail(name, *explain(error))
    leave(code if isinstance(code, int) else 0)


def explain(error: Exception) -> tuple[str, int]:
    """The line to print for an exception, and the exit code."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):
        return f"{error.format_message().rstrip('.')} (see --help)", 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; {TO_DO.get(error.errno or 0, 'name another path')}", 1
    if is_shortage(error):
        return "out of memory; try again with fewer programs beside it, or on a machine with more (--debug shows where)", 1
    return f"unexpected {type(error).__name__}: {first_line(error)} (run again with --debug for the traceback)", 1


def is_shortage(error: BaseException) -> bool:
    """Whether an allocation failed; torch's CPU allocator, DALI and CUDA's libraries have no class of error for it."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error) for words in SHORTAGES)


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that some libraries add; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def redacted(text: str) -> str:
    """Text without what is secret in its URLs: user and password, and what stands behind a question mark."""
    return re.sub(r"(\w://)(?:[^\s'\"]*@)?([^\s?#'\"]*)[^\s'\"]*", r"\1\2", text)


def program() -> str:
    """What this process was started as, for errors."""
    return Path(sys.argv[0]).name


def warn(message: str) -> None:
    """One line for something that went wrong and was mended; lost where nobody can read it."""
    with suppress(OSError):
        print(f"warning: {redacted(message)}", file=sys.stderr)


def blurt(text: str) -> None:
    """Writes to standard error from a signal's handler or a thread, where a print is not safe; lost where nobody can read it."""
    with suppress(OSError):
        os.write(2, text.encode())


def fail(program: str, message: str, code: int) -> NoReturn:
    with suppress(OSError):
        print(f"{program}: {redacted(as_typed(' '.join(message.splitlines())))}", file=sys.stderr)
    leave(code)


def leave(code: int) -> NoReturn:
    """Exits with that code."""
    flush_output()
    sys.exit(code)


def flush_output() -> None:
    """Writes what is left of the output; where that cannot be, drops it, as Python would exit with 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
