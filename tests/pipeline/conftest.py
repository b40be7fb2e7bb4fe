"""Batches that many tests compare with."""

import shutil

import pytest

from tests.pipeline.loaders import copied, end_by_loops, loader, take


@pytest.fixture(autouse=True)
def ended_as_asked(request, monkeypatch):
    """Before any other fixture makes a loader: a test of ``pixels`` "levels" has them ended by loops."""
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("pixels") == "levels":
        end_by_loops(monkeypatch)


@pytest.fixture(scope="session")
def whole(photo_set):
    """By back-end: 14 batches, which are 6 of an epoch, 6 of the next and 2; nothing is made ahead of them."""
    made = {}

    def find(pixels):
        if pixels not in made:
            made[pixels] = [copied(views) for views in take(loader(photo_set, pixels=pixels, prefetch=0), 14)]
        return made[pixels]

    return find


@pytest.fixture
def copy(photo_set, tmp_path):
    return shutil.copytree(photo_set, tmp_path / "copy")
