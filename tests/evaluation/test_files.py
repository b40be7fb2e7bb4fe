"""Features on disk: what is kept and what is not, and what others may do to it meanwhile."""

import numpy as np
import pytest
import torch

from evaluation.files import Files


def fill(files, name="a"):
    with files.new(name, (1, 4, 3)) as array:
        array[:] = np.arange(12).reshape(1, 4, 3)


EXPECTED = torch.arange(12.0).half().view(1, 4, 3)


def test_what_is_not_kept_has_no_name(tmp_path):
    files = Files(tmp_path / "features", keep=False)
    with files.new("a", (1, 4, 3)) as array:
        assert list(tmp_path.iterdir()) == []  # nothing for a killed process to leave
        array[:] = np.arange(12).reshape(1, 4, 3)
    assert torch.equal(files.find("a"), EXPECTED)
    assert list(tmp_path.iterdir()) == []
    assert Files(tmp_path / "features", keep=False).find("a") is None


def test_what_is_kept_is_found_and_outlives_its_file(tmp_path):
    fill(Files(tmp_path / "features", keep=True))
    later = Files(tmp_path / "features", keep=False)
    assert torch.equal(later.find("a"), EXPECTED)
    (tmp_path / "features" / "a.npy").unlink()
    assert torch.equal(later.find("a"), EXPECTED)


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_not_finished_is_not_there(tmp_path, keep):
    files = Files(tmp_path / "features", keep)
    with pytest.raises(RuntimeError), files.new("a", (1, 4, 3)):
        raise RuntimeError
    assert files.find("a") is None
    assert not list(tmp_path.glob("features/*"))
