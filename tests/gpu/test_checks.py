"""The checks of `make gpu-check`, as tests."""

from pathlib import Path
from unittest.mock import patch

import pytest

from amdim.model import conv_matmul
from bench import gpu_check, gpu_commands
from bench.gpu_skip import Skip

SMALL = Path(__file__).parent.parent / "small.toml"


@pytest.mark.gpu
@pytest.mark.parametrize("check", gpu_check.CHECKS, ids=lambda check: check.__name__)
def test_on_this_gpu(check):
    try:
        assert check()
    except Skip as reason:
        pytest.skip(str(reason))


def test_the_check_of_the_encoder_compares_what_rounding_leaves_equal():
    """On a CPU, whose products and plain operations it can tell apart no more than a GPU's."""
    by_products = gpu_check.encoded("cpu")
    with patch.object(conv_matmul, "serve", lambda _: False):
        plain = gpu_check.encoded("cpu")
    assert 0 < gpu_check.difference(plain, by_products) < 1e-4


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_check_of_the_commands_passes_on_a_cpu(tmp_path):
    assert "linear probe" in gpu_commands.rehearse(tmp_path, "0", "--config", str(SMALL))
