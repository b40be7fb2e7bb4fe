"""Memory, file descriptors and threads after 20,000 batches and 50 beginnings."""

import json
import subprocess
import sys

import pytest

PARTS, BATCHES = 50, 400
SETTLED = 10  # parts until the allocator has what it takes
THREADS = 10  # of a loader at most: its own, DALI's
GROWTH = 4 << 20  # bytes in the 40 parts after them: 260 a batch, or 100 kB a beginning


@pytest.fixture(scope="module")
def small_shapes(tmp_path_factory):
    from amdim.shards.build import build
    from amdim.shards.shapes.renderer import source

    out = tmp_path_factory.mktemp("soak") / "shapes"
    build(source(0, {"train": 200, "val": 16}), out, seed=0, workers=1, max_rejected=0, overwrite=False, show=lambda _: None)
    return out


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("pixels", ["dali", "torch"])
def test_nothing_grows(small_shapes, pixels):
    """Its short sibling looks at threads alone: tests/pipeline/test_stream.py."""
    command = [sys.executable, "-m", "tests.pipeline.soak", small_shapes, pixels, PARTS, BATCHES]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    held = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(held) == PARTS
    assert held[-1]["memory"] - held[SETTLED]["memory"] <= GROWTH
    assert {row["files"] for row in held} == {held[0]["files"]}
    assert max(row["threads"] for row in held) <= 1 + 2 * THREADS  # those of a part's two loaders may not be gone yet
