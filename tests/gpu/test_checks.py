"""The checks of `make gpu-check`, as tests."""

import pytest

from bench import gpu_check
from bench.gpu import Skip


@pytest.mark.gpu
@pytest.mark.parametrize("check", gpu_check.CHECKS, ids=lambda check: check.__name__)
def test_on_this_gpu(check):
    try:
        assert check()
    except Skip as reason:
        pytest.skip(str(reason))
