"""Small sets, and the command line run inside this process."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from amdim.errors import run_app
from amdim.shards.build import Built, build
from amdim.shards.cli import app
from amdim.shards.shapes import renderer
from amdim.shards.sources.base import Source

SMALL = {"train": 808, "val": 40}  # enough for eight training shards


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def build_quietly(source: Source, out: Path, **options) -> Built:
    defaults = {"seed": 0, "workers": 1, "max_rejected": 0.0, "overwrite": False, "show": lambda _: None}
    return build(source, out, **(defaults | options))


@pytest.fixture(scope="session")
def quietly() -> Callable[..., Built]:
    return build_quietly


@pytest.fixture(scope="session")
def shapes_set(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shapes")
    build_quietly(renderer.source(0, SMALL), out)
    return out


@pytest.fixture
def cli(monkeypatch, capsys) -> Callable[..., Outcome]:
    """``cli("build", "shapes", …)`` as typed after ``python -m shards``."""

    def call(*words) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["shards", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            run_app(app, "shards")
        return Outcome(exit_.value.code, *capsys.readouterr())

    return call
