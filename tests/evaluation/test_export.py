"""Encoders that leave: each format gives what PyTorch gives, for any number of images."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from amdim.engine import checkpoint
from amdim.engine.checkpoint import Checkpoint
from amdim.engine.presets import PRESETS
from amdim.engine.runs import Config
from amdim.errors import UsageError, UserError
from amdim.evaluation.export import WRITERS, export
from amdim.evaluation.feature_extractors import weights_of
from amdim.model import Encoder, EncoderConfig, load_encoder
from amdim.pipeline.augment.recipe_file import as_fields
from amdim.pipeline.augment.recipes import RECIPES
from tests.commands import little_room


@pytest.fixture(scope="module")
def encoder():
    """Small, and with no weight left at the zero or one that it starts with: what is not exported would be missed."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(32, 8, 48, 2, use_bn=True))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in encoder.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer))
    return encoder.eval()


@pytest.fixture(scope="module")
def saved(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "step-7"
    settings = replace(PRESETS["demo"], encoder=encoder.config)
    config = Config("data/shapes", "demo", settings, 7, 3, "auto", "10m", views=as_fields(RECIPES["shapes32"])).as_dict()
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    return Checkpoint(path, weights | {"linear.weight": torch.zeros(2, 48)}, {"step": 7}, config)


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def assert_same(found, features):
    for ours, theirs in zip(found, features, strict=True):
        assert torch.as_tensor(ours).shape == theirs.shape
        torch.testing.assert_close(torch.as_tensor(ours), theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_safetensors_come_back_with_the_same_bits(saved, encoder, images, tmp_path):
    export(saved, tmp_path, tmp_path / "out" / "encoder.safetensors", averaged=False)
    loaded = load_encoder(tmp_path / "out" / "encoder.safetensors")
    assert loaded.config == encoder.config
    assert not loaded.training
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(loaded(images), encoder(images), strict=True))
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1  # as readable as what Python writes
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"encoder.safetensors{suffix}" for suffix in ("", ".json", ".md")
    }


@torch.no_grad()
def test_onnx_agrees_for_any_batch(saved, encoder, images, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export(saved, tmp_path, tmp_path / "encoder.onnx", averaged=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    assert [each.name for each in session.get_outputs()] == ["r1", "r5", "r7"]
    for count in (1, 2, 5):
        assert_same(session.run(None, {"images": images[:count].numpy()}), encoder(images[:count]))


@torch.no_grad()
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("side", [64, 128])
def test_encoders_of_larger_images_agree(tmp_path, side, suffix):
    """Theirs are other networks: two more blocks, and of 128 px a stem with reflection."""
    torch.manual_seed(side)
    encoder = Encoder(EncoderConfig(side, 8, 64, 1)).eval()
    settings = replace(PRESETS["laptop64" if side == 64 else "laptop128"], encoder=encoder.config)
    config = Config("data/x", "x", settings, 7, 3, "auto", "10m", views=as_fields(RECIPES[settings.recipe])).as_dict()
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    file, images = tmp_path / f"encoder{suffix}", torch.randn(3, 3, side, side)
    export(Checkpoint(tmp_path / "step-7", weights, {"step": 7}, config), tmp_path, file, averaged=False)
    for count in (1, 3):
        if suffix == ".onnx":
            session = pytest.importorskip("onnxruntime").InferenceSession(str(file))
            found = session.run(None, {"images": images[:count].numpy()})
        else:
            found = torch.export.load(file).module()(images[:count])
        assert_same(found, encoder(images[:count]))


@torch.no_grad()
def test_pt2_agrees_for_any_batch(saved, encoder, images, tmp_path):
    export(saved, tmp_path, tmp_path / "encoder.pt2", averaged=False)
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 2, 5):
        assert_same(program(images[:count]), encoder(images[:count]))


def test_the_card_says_what_goes_in_and_what_probes_found_of_these_weights(saved, tmp_path):
    result = {"data": "data/shapes", "n_test": 4000, "top1_random_init": 0.2, "top1_raw_pixels": None}
    for name, weights, top1 in (("linear", weights_of(saved), 0.5645), ("knn", "those of another step", 0.9999)):
        found = result | {"probe": name, "step": 7, "weights": weights, "top1": top1}
        (tmp_path / f"eval-{name}.json").write_text(json.dumps(found))
    export(saved, tmp_path, tmp_path / "encoder.safetensors", averaged=True)
    card = (tmp_path / "encoder.safetensors.md").read_text()
    for words in ("32 x 32", "0.57, 0.58, 0.56", "`shapes`", "(batch, 48, 7, 7)", "56.45%", "moving average", "load_encoder("):
        assert words in card, card
    assert "99.99%" not in card
    fields = json.loads((tmp_path / "encoder.safetensors.json").read_text())
    assert fields["outputs"]["r5"] == ["batch", 48, 5, 5]
    assert fields["input"]["std"] == [0.31, 0.24, 0.22]


def test_of_an_imported_run_nothing_is_said_that_its_file_does_not_say(saved, tmp_path):
    export(saved._replace(config=saved.config | {"data": ""}), tmp_path, tmp_path / "encoder.safetensors", False)
    card = (tmp_path / "encoder.safetensors.md").read_text()
    assert "does not say of what images" in card
    assert not any(words in card for words in ("preset", "seed", "steps of"))
    trained = json.loads((tmp_path / "encoder.safetensors.json").read_text())["trained"]
    assert trained.keys() == {"data", "preset", "step", "averaged", "digest"}


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(saved, tmp_path, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    file = tmp_path / f"encoder{suffix}"
    with little_room(), pytest.raises(UserError, match=f"{file}: could not be written") as error:
        export(saved, tmp_path, file, averaged=False)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_onnx_with_its_weights_beside_it(saved, encoder, images, tmp_path, monkeypatch):
    """As of models beyond what one file of ONNX may hold."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("amdim.evaluation.export.PROTOBUF_LIMIT", 1)
    written = export(saved, tmp_path, tmp_path / "encoder.onnx", averaged=False)
    assert sorted(path.name for path in written) == [f"encoder.onnx{suffix}" for suffix in ("", ".data", ".json", ".md")]
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    assert_same(session.run(None, {"images": images.numpy()}), encoder(images))


def test_a_place_that_cannot_be_is_named_as_it_was_typed(saved, tmp_path):
    (tmp_path / "file").touch()
    file = tmp_path / "file" / "encoder.safetensors"
    with pytest.raises(UserError, match=f"{file}: could not be written .*name another place"):
        export(saved, tmp_path, file, averaged=False)


@pytest.mark.parametrize("name", ["encoder.pth", "encoder", "made.onnx"])
def test_other_formats_are_one_line(saved, tmp_path, name):
    (tmp_path / "made.onnx").mkdir()
    with pytest.raises(UsageError, match="--export"):
        export(saved, tmp_path, tmp_path / name, averaged=False)


def test_a_checkpoint_of_another_architecture_is_one_line(saved, tmp_path):
    settings = saved.config["settings"] | {"encoder": saved.config["settings"]["encoder"] | {"width": 4}}
    with pytest.raises(UserError, match="not those of the encoder"):
        export(saved._replace(config=saved.config | {"settings": settings}), tmp_path, tmp_path / "e.pt2", averaged=False)
    assert not list(tmp_path.iterdir())


def test_load_encoder_says_what_is_wrong(saved, tmp_path):
    export(saved, tmp_path, tmp_path / "encoder.safetensors", averaged=False)
    with pytest.raises(OSError, match="nobody"):
        load_encoder(tmp_path / "nobody.safetensors")
    with pytest.raises(ValueError, match="no checkpoint"):
        load_encoder(tmp_path)
    fields = json.loads((tmp_path / "encoder.safetensors.json").read_text())
    fields["encoder"]["width"] = 16
    fields["encoder"]["embedding"] = 64
    (tmp_path / "encoder.safetensors.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="not those that its configuration describes"):
        load_encoder(tmp_path / "encoder.safetensors")
    whole = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "encoder.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        load_encoder(tmp_path / "encoder.safetensors")


def test_load_encoder_names_the_damaged_part_of_a_checkpoint(saved, tmp_path):
    directory = tmp_path / "step-7"
    directory.mkdir()
    checkpoint.write(directory, saved.weights, saved.trainer, saved.config)
    config, trainer = directory / "config.json", directory / "trainer.pt"
    whole = config.read_text()
    config.write_text(json.dumps({"settings": {}}))
    with pytest.raises(ValueError, match=r"config\.json: does not describe an encoder"):
        load_encoder(directory)
    config.write_text(whole)
    load_encoder(directory)
    trainer.write_bytes(trainer.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"trainer\.pt: cannot be read"):
        load_encoder(directory)


def test_numbers_are_finite(encoder, images):
    """The fixture's own: equality of nan with nothing would prove nothing."""
    assert all(np.isfinite(each.detach().numpy()).all() and each.std() > 0 for each in encoder(images))
