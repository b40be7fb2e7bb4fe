"""The checks of `make gpu-check`, as tests."""

from pathlib import Path

import pytest

from bench import gpu_check, gpu_commands
from bench.gpu import Skip

SMALL = Path(__file__).parent.parent / "small.toml"


@pytest.mark.gpu
@pytest.mark.parametrize("check", gpu_check.CHECKS, ids=lambda check: check.__name__)
def test_on_this_gpu(check):
    try:
        assert check()
    except Skip as reason:
        pytest.skip(str(reason))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_check_of_the_commands_passes_on_a_cpu(tmp_path):
    assert "linear probe" in gpu_commands.rehearse(tmp_path, "0", "--config", str(SMALL))
