"""Checkpoints of the original: the features and logits of a model written anew with its names; bad files, one line each."""

import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from amdim.model import amdim_public
from tests.original import Original, save

SHAPES = [(32, 1), (32, 3), (64, 2), (128, 2)]


def agree(ours, theirs, tolerance=1e-6):
    """Largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("use_bn", [False, True])
@pytest.mark.parametrize(("size", "depth"), SHAPES)
def test_features_and_logits_are_the_originals(tmp_path, size, depth, use_bn, legacy):
    original = Original(encoder_size=size, n_depth=depth, use_bn=use_bn, tclip=17.5)
    found = amdim_public.load(save(original.checkpoint(), tmp_path / "cpt.pth", legacy))
    x = torch.randn(3, 3, size, size)
    with torch.no_grad():
        *theirs, linear, mlp = original(x)
        ours = found.encoder(x)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.dtype is torch.float32
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)
            agree(mine, other)
        agree(found.linear(ours.r1.flatten(1)), linear)
        agree(found.mlp(ours.r1.flatten(1)), mlp)
    assert (found.clip, found.classes, found.epoch, found.step) == (17.5, 3, 7, 5000)
    config = found.encoder.config
    assert (config.size, config.width, config.embedding, config.depth, config.use_bn) == (size, 4, 40, depth, use_bn)
    assert not found.encoder.training
    assert not found.mlp.training


def test_in_float64_the_two_are_one_function(tmp_path):
    """Rounding out of the way, nothing is left: no constant (as of batch normalisation) differs in any digit."""
    original = Original(encoder_size=32, use_bn=True)
    found = amdim_public.load(save(original.checkpoint(), tmp_path / "cpt.pth"))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for ours, theirs in zip(found.encoder.double()(x), original.double()(x)[:3], strict=True):
        agree(ours, theirs, 1e-14)


def test_the_test_has_no_closed_path():
    """Each weight that the original uses moves its features: no rename could go unseen."""
    original = Original(encoder_size=32, use_bn=True)
    sum(out.square().sum() for out in original(torch.randn(4, 3, 32, 32))).backward()
    assert all(p.grad.abs().max() > 0 for p in original.parameters() if p.requires_grad)


@pytest.mark.parametrize("use_bn", [False, True])
def test_names_need_no_module_and_may_have_more(tmp_path, use_bn):
    original = Original(use_bn=use_bn)
    x = torch.randn(2, 3, 32, 32)
    for rename in (lambda name: name.replace(".module", ""), lambda name: f"module.{name}"):
        saved = original.checkpoint()
        saved["model"] = {rename(name): tensor for name, tensor in saved["model"].items()}
        torch.testing.assert_close(amdim_public.load(save(saved, tmp_path / "cpt.pth")).encoder(x).r5, original(x)[1])


def test_half_precision_is_widened(tmp_path):
    """The original's mixed precision kept convolutions in float16."""
    original = Original().half().float()
    saved = original.checkpoint()
    saved["model"] = {name: t.half() if "conv" in name else t for name, t in saved["model"].items()}
    found = amdim_public.load(save(saved, tmp_path / "cpt.pth"))
    x = torch.randn(2, 3, 32, 32)
    assert all(p.dtype is torch.float32 for p in found.modules().parameters())
    agree(found.encoder(x).r1, original(x)[0])


def test_what_use_bn_leaves_idle_may_be_missing(tmp_path):
    saved = Original(use_bn=False).checkpoint()
    idle = [name for name in saved["model"] if ".bn1.bn." in name or ".bn_hid.bn." in name or ".layer_list.4.bn." in name]
    assert len(idle) > 30
    for name in idle:
        del saved["model"][name]
    amdim_public.load(save(saved, tmp_path / "cpt.pth"))


def test_it_can_be_trained_on(tmp_path):
    found = amdim_public.load(save(Original().checkpoint(), tmp_path / "cpt.pth"))
    found.encoder.train()(torch.randn(4, 3, 32, 32)).r7.square().sum().backward()
    assert found.encoder.head_7.conv1.weight.grad.abs().sum() > 0


def test_an_integer_switch_and_no_cursor(tmp_path):
    saved = Original(use_bn=True).checkpoint()
    saved["hyperparams"]["use_bn"] = 1
    del saved["cursor"]
    found = amdim_public.load(save(saved, tmp_path / "cpt.pth"))
    assert found.encoder.config.use_bn is True
    assert (found.epoch, found.step) == (0, 0)


def refused(path):
    """The one line."""
    with pytest.raises(amdim_public.Unreadable) as caught:
        amdim_public.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_anywhere(tmp_path, legacy):
    whole = save(Original().checkpoint(), tmp_path / "cpt.pth", legacy).read_bytes()
    cut = tmp_path / "cut.pth"
    lengths = {*range(1, 400, 7), *range(400, len(whole), len(whole) // 97), len(whole) - 300, len(whole) - 1}
    for length in sorted(lengths):
        cut.write_bytes(whole[:length])
        assert refused(cut).startswith("is truncated"), length


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("write", [save, lambda o, p: save(o, p, legacy=False), lambda o, p: p.write_bytes(pickle.dumps(o))])
@pytest.mark.parametrize("where", ["cursor", "hyperparams", "model"])
def test_code_is_not_run(tmp_path, where, write):
    bomb = Bomb(tmp_path / "exploded")
    saved = Original().checkpoint()
    saved[where] = {**saved[where], "bomb": bomb}
    write(saved, tmp_path / "cpt.pth")
    why = refused(tmp_path / "cpt.pth")
    assert "system" in why or "something else" in why
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(bomb))
    assert (tmp_path / "exploded").exists(), "the bomb is no bomb"


def archive(path, *names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"x")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_text("a checkpoint\n" * 100), "is something else"),
        (lambda p: p.write_bytes(bytes(range(256)) * 10), "is something else"),
        (lambda p: archive(p, "word/document.xml"), "is something else: a zip"),
        (lambda p: archive(p, "archive/data.pkl"), "is damaged"),
        (lambda p: torch.jit.save(torch.jit.script(nn.Linear(2, 2)), p), "is something else: a zip"),
        (lambda p: torch.save([1, 2], p), "holds no 'model'"),
        (lambda p: torch.save(nn.Linear(2, 2).state_dict(), p), "holds no 'model'"),
        (lambda p: torch.save({"model": {}, "info_epochs": 3}, p), "holds no 'hyperparams'"),
        (lambda p: torch.save(nn.Linear(2, 2), p), "calls for torch.nn.modules.linear.Linear"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_something_else(tmp_path, write, says):
    write(tmp_path / "file.pth")
    assert says in refused(tmp_path / "file.pth")


def without(part, name):
    def change(saved):
        del saved[part][name]

    return change


def altered(part, name, value):
    def change(saved):
        saved[part][name] = value

    return change


STEM = "encoder.module.layer_list.0.conv.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("hyperparams", "tclip"), "hyperparams that lack tclip"),
        (altered("hyperparams", "encoder_size", 96), "encoder size 96"),
        (altered("hyperparams", "n_rkhs", 8), "embedding 8 is less than the 16 channels"),
        (altered("hyperparams", "ndf", "4"), "ndf is '4', not a whole number from 1 to 100,000"),
        (altered("hyperparams", "n_depth", True), "n_depth is True"),
        (altered("hyperparams", "n_depth", 10**9), "n_depth is 1000000000"),
        (altered("hyperparams", "tclip", float("nan")), "tclip is nan"),
        (altered("hyperparams", "use_bn", 2), "use_bn is 2"),
        (altered("hyperparams", "use_bn", torch.ones(2)), "use_bn is tensor"),
        (without("model", STEM), "lacks 1 weight (encoder.layer_list.0.conv.weight)"),
        (altered("model", "encoder.module.more\x1b[2J", torch.ones(1)), "has 1 weight (encoder.more?[2J) too many"),
        (altered("model", STEM, torch.ones(4, 3, 5, 5)), "layer_list.0.conv.weight has shape (4, 3, 5, 5), and (4, 3, 3, 3) by"),
        (altered("model", STEM, torch.ones(4, 3, 3, 3).to_sparse()), "is no tensor"),
        (altered("model", STEM, None), "is no tensor"),
        (altered("model", STEM, torch.ones(4, 3, 3, 3, dtype=torch.cfloat)), "is no tensor of real numbers"),
        (altered("model", STEM, torch.ones(4, 3, 3, 3, device="meta")), "is no tensor of real numbers"),
        (
            altered("model", STEM.replace(".module", ""), torch.ones(4, 3, 3, 3)),
            "is there twice, with and without DataParallel's",
        ),
        (altered("hyperparams", "n_depth", 3), "lacks 8 weights (encoder.layer_list.2.layer_list.2.conv1.weight, "),
        (altered("hyperparams", "n_depth", 1), "too many"),
        (altered("hyperparams", "n_classes", 10), "block_glb_lin.block_forward.2.weight has shape (3, 40), and (10, 40)"),
        (altered("hyperparams", "encoder_size", 64), "lacks"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, says):
    saved = Original().checkpoint()
    change(saved)
    assert says in refused(save(saved, tmp_path / "cpt.pth", legacy=False))


def test_missing_and_extra_are_both_said(tmp_path):
    saved = Original().checkpoint()
    saved["model"]["encoder.module.stem.weight"] = saved["model"].pop(STEM)
    why = refused(save(saved, tmp_path / "cpt.pth"))
    assert "lacks 1 weight (encoder.layer_list.0.conv.weight) and has 1 weight (encoder.stem.weight) too many" in why


def test_no_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        amdim_public.load(tmp_path / "nothing.pth")
