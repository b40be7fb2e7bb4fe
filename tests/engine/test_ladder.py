"""The ladder of presets: costs against a real pass, and a row for each."""

import pytest
import torch

from amdim.engine.monitor import preset_table
from amdim.engine.presets import PRESETS
from amdim.model.encoder import Encoder, EncoderConfig
from docs import paste_output


def test_weights_and_kept_maps_are_those_of_a_real_pass(monkeypatch):
    """Plain operations, as on a GPU; on the meta device nothing is computed."""
    monkeypatch.setattr("amdim.model.conv_matmul.serve", lambda _: False)
    config = EncoderConfig(32, 8, 32, 2, use_bn=True)
    encoder, kept = Encoder(config), []
    with preset_table.keeping(kept):
        encoder(torch.randn(4, 3, 32, 32))
    found = preset_table.cost(config)
    assert found.weights == sum(weight.numel() for weight in encoder.parameters())
    assert found.state == 18 * found.weights
    assert found.an_image == pytest.approx(
        preset_table.maps(encoder, kept) * 2 / 4 / 2, rel=0.01
    )  # devices differ in what they keep of statistics


def test_maps_count_storage_once_and_weights_never():
    layer = torch.nn.Linear(4, 4)
    kept = torch.empty(6, 4)
    assert preset_table.maps(layer, [kept, kept.t(), kept[:2], layer.weight]) == 96


def test_every_preset_has_a_row_under_every_heading():
    rows = preset_table.rows()
    assert [row[0] for row in rows] == list(PRESETS)
    assert {len(row) for row in rows} == {len(preset_table.HEADINGS)}
    assert preset_table.EXPECTED.keys() <= PRESETS.keys()


def test_depth_and_width_cost():
    small, large = (preset_table.cost(PRESETS[name].encoder) for name in ("imagenet-small", "imagenet-large"))
    assert all(one < other for one, other in zip(small, large, strict=True))


def test_speed_is_of_the_machine_that_it_names():
    """docs/scaling.md: eight A100 make 3,054 images/s at an efficiency of 99 %."""
    assert preset_table.speed("demo").endswith("measured")
    assert float(preset_table.speed("imagenet-medium")) == pytest.approx(3054 / 0.99 / 8, rel=0.01)


def test_the_readme_shows_the_ladder_as_it_is():
    assert paste_output.table() in (paste_output.ROOT / "README.md").read_text()
