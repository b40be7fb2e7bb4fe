"""Optimizers beside Adam: against their papers' formulas in float64, and what does not change unless it is asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from amdim.engine.optim import adam, optimizers
from amdim.engine.optim.lamb_lars import TRUST, Lamb, Lars
from amdim.engine.optim.optimizers import groups, make
from amdim.engine.presets import PRESETS, configure
from amdim.errors import UsageError
from tests.engine.test_adam import PYTHON_ONLY, forget

CPU = torch.device("cpu")
PRESET = replace(PRESETS["demo"], lr=0.05, weight_decay=0.1)
STEPS = 12
NAMES = ("adam", "adamw", "lamb", "lars")


class Model(nn.Module):
    """A kernel of a convolution in the GPU's layout, a matrix, a bias, and weights that begin as zeros."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = ((4, 3, 2, 2), (5, 4), (6,))
        self.all = nn.ParameterList(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
        self.all.append(torch.zeros(3, 2, dtype=dtype))
        self.all[0].data = self.all[0].data.contiguous(memory_format=torch.channels_last)

    def loss(self, step):
        generator = torch.Generator().manual_seed(step)
        pairs = [(w, torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w.dtype)) for w in self.all]
        return sum((w.sin() * factor + 0.3 * w * factor).sum() for w, factor in pairs)


def train(model, optimizer, first=0, last=STEPS):
    for step in range(first, last):
        optimizer.zero_grad()
        model.loss(step).backward()
        optimizer.step()
    return [weight.detach().clone() for weight in model.parameters()]


def by_the_paper(update, decays):
    """Weights after STEPS of ``update(state, w, g, decay, t)``, in NumPy's float64; gradients are autograd's."""
    model = Model()
    states = [{} for _ in model.all]
    for step in range(STEPS):
        model.zero_grad()
        model.loss(step).backward()
        for weight, state, decay in zip(model.all, states, decays, strict=True):
            new = update(state, weight.detach().numpy().copy(), weight.grad.numpy(), decay, step + 1)
            weight.data.copy_(torch.from_numpy(np.ascontiguousarray(new)))
    return list(model.parameters())


def norm(x):
    return np.sqrt((x * x).sum())


def lamb(state, w, g, decay, t):
    """Algorithm 2 of arXiv 1904.00962."""
    b1, b2 = PRESET.beta1, PRESET.beta2
    state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0) + (1 - b2) * g * g
    r = state["m"] / (1 - b1**t) / (np.sqrt(state["v"] / (1 - b2**t)) + 1e-6)
    u = r + (decay or 0) * w
    scaled = decay is not None and norm(w) > 0 and norm(u) > 0
    return w - PRESET.lr * (norm(w) / norm(u) if scaled else 1) * u


def lars(state, w, g, decay, _t):
    """Algorithm 1 of arXiv 1708.03888."""
    below = norm(g) + (decay or 0) * norm(w)
    rate = TRUST * norm(w) / below if decay is not None and norm(w) > 0 else 1
    state["v"] = PRESET.beta1 * state.get("v", 0) + PRESET.lr * rate * (g + (decay or 0) * w)
    return w - state["v"]


@pytest.mark.parametrize(("name", "paper"), [("lamb", lamb), ("lars", lars)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("biases", [True, False])
def test_ours_are_the_papers(name, paper, decay, biases):
    """What is left out of the decay, marked None, is left out of the ratio too; with no decay at all, everything has it."""
    model = Model()
    preset = replace(PRESET, optimizer=name, weight_decay=decay, decay_biases=biases)
    alone = None if decay and not biases else decay
    found = train(model, make("torch", model, preset, CPU).optimizer)
    for mine, theirs in zip(found, by_the_paper(paper, [decay, decay, alone, decay]), strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-11, atol=1e-13)


def test_the_ratio_is_in_force():
    """The tests above would not tell a ratio of 1 from none."""
    model = Model()
    before = [weight.detach().clone() for weight in model.all]
    train(model, Lamb(list(model.all), 0.01, (0.8, 0.999), 0.1), last=1)
    for old, new in zip(before[:3], model.all, strict=False):
        torch.testing.assert_close((new - old).norm(), 0.01 * old.norm(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_one_group_and_torchs_fused_adam_bit_for_bit(name):
    """Same losses as ever where nothing is asked for: the others differ, so equality is no accident."""
    model, other = Model(torch.float32), Model(torch.float32)
    found = train(model, make("torch", model, replace(PRESET, optimizer=name), CPU).optimizer)
    options = {"lr": PRESET.lr, "betas": (PRESET.beta1, PRESET.beta2), "weight_decay": PRESET.weight_decay}
    expected = train(other, torch.optim.Adam(other.parameters(), fused=True, **options))
    same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert same == (name == "adam")


@pytest.mark.parametrize("preset", PRESETS.values())
def test_no_preset_departs_from_the_original_by_itself(preset):
    assert (preset.optimizer, preset.decay_biases, preset.grad_clip, preset.ema) == ("adam", True, 0.0, 0.0)


def test_biases_and_normalisation_can_be_left_out_of_the_decay():
    model = Model()
    (whole,) = groups(model, PRESET)
    assert len(whole["params"]) == 4
    decays, alone = groups(model, replace(PRESET, decay_biases=False))
    assert [weight.ndim for weight in decays["params"]] == [4, 2, 2]
    assert [weight.ndim for weight in alone["params"]] == [1]
    assert alone["weight_decay"] == 0.0
    made = make("torch", model, replace(PRESET, optimizer="adamw", decay_biases=False), CPU).optimizer
    for weight in model.all:
        weight.grad = torch.zeros_like(weight)
    before = [weight.detach().clone() for weight in model.all]
    made.step()
    assert torch.equal(model.all[2], before[2])
    torch.testing.assert_close(model.all[1].detach(), before[1] * (1 - PRESET.lr * PRESET.weight_decay))


@pytest.mark.parametrize("name", NAMES)
def test_states_are_continued_bit_for_bit(name, tmp_path):
    preset = replace(PRESET, optimizer=name, decay_biases=False)
    whole, first, second = (Model(torch.float32) for _ in range(3))
    expected = train(whole, make("torch", whole, preset, CPU).optimizer)
    begun = make("torch", first, preset, CPU).optimizer
    train(first, begun, 0, 5)
    torch.save(adam.state_dict(begun), tmp_path / "state.pt")
    second.load_state_dict(first.state_dict())
    resumed = make("torch", second, preset, CPU).optimizer
    adam.load_state_dict(resumed, torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(train(second, resumed, 5), expected, strict=True))


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_a_step_that_overflowed_is_skipped_whole(name):
    """As GradScaler says it on the device: weights, moments and counts stay what they were."""
    model = Model(torch.float32)
    optimizer = make("torch", model, replace(PRESET, optimizer=name), CPU).optimizer
    train(model, optimizer, 0, 3)
    before = [value.clone() for value in (*model.parameters(), *values(optimizer))]
    for weight in model.parameters():
        weight.grad.fill_(float("inf"))
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, (*model.parameters(), *values(optimizer)), strict=True))
    optimizer.found_inf = torch.zeros(())
    again = train(model, optimizer, 3, 4)
    assert not any(torch.equal(a, b) for a, b in zip(before, again, strict=False))


@pytest.mark.parametrize("name", NAMES)
def test_a_grad_scaler_steps_and_skips(name):
    """The scaler itself, on the CPU: a whole step where all is finite is the one without it, and none where it is not."""
    plain, scaled = Model(torch.float32), Model(torch.float32)
    preset = replace(PRESET, optimizer=name)
    expected = train(plain, make("torch", plain, preset, CPU).optimizer, 0, 3)
    optimizer, scaler = make("torch", scaled, preset, CPU).optimizer, torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in (0, 1, None, 2):
        optimizer.zero_grad()
        scaler.scale(scaled.loss(step or 0) * (float("inf") if step is None else 1.0)).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 512.0
    for mine, theirs in zip(scaled.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=1e-6, atol=1e-7)


def values(optimizer):
    return [value for state in optimizer.state.values() for value in state.values()]


def test_layouts_are_kept():
    model = Model(torch.float32)
    for kind in (Lamb(list(model.all), 0.01, (0.8, 0.999), 0.1), Lars(list(model.all), 1.0, 0.9, 0.1)):
        train(model, kind, last=2)
        states = [value for value in kind.state[model.all[0]].values() if value.ndim == 4]
        assert states
        assert all(value.is_contiguous(memory_format=torch.channels_last) for value in (model.all[0], *states))


FUSED_LAMB = """
import torch

class FusedLAMB(torch.optim.Optimizer):
    made = []

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, max_grad_norm=1.0, use_nvlamb=False):
        self.options = dict(max_grad_norm=max_grad_norm, use_nvlamb=use_nvlamb, eps=eps)
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    def step(self): pass
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A package named apex; and weights that say they are made on a GPU are made here."""
    real = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, **options: real(*size, **(options | {"device": "cpu"})))

    def put(files):
        for name, text in files.items():
            path = tmp_path / "apex" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    forget()
    yield put
    forget()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_apexs_lamb_serves_where_it_works(install, decay):
    """With what makes it the paper's: no clipping of its own, and the ratio for all weights where nothing decays."""
    install({"__init__.py": "", "optimizers/__init__.py": FUSED_LAMB})
    preset = replace(PRESET, optimizer="lamb", weight_decay=decay)
    chosen = make("torch", Model(), preset, torch.device("cuda"))
    assert (chosen.name, chosen.kernel) == ("LAMB", "apex's fused kernel")
    assert chosen.optimizer.options == {"max_grad_norm": float("inf"), "use_nvlamb": not decay, "eps": 1e-6}
    scaled = make("torch", Model(), preset, torch.device("cuda"), scaled=True)
    assert (scaled.kernel, scaled.reason) == ("our own", "the host would wait for each scaled step of apex's")


@pytest.mark.parametrize(("files", "says"), [({}, "not installed"), (PYTHON_ONLY, "does not work here")])
def test_ours_serves_where_apexs_does_not_and_the_table_says_why(install, files, says):
    install(files)
    chosen = make("torch", Model(), replace(PRESET, optimizer="lamb"), torch.device("cuda"))
    assert isinstance(chosen.optimizer, Lamb)
    assert chosen.kernel == "our own"
    assert says in chosen.reason
    assert (says == "not installed") == (not files)


def test_wrong_usage():
    with pytest.raises(UsageError, match="leave it out with --optimizer lars"):
        make("apex", Model(), replace(PRESET, optimizer="lars"), CPU)
    with pytest.raises(UsageError, match="give one, as in --lr 2"):
        configure("demo", 10**6, {"optimizer": "lars"})
    with pytest.raises(UsageError, match="--optimizer lamb: presets' rates are Adam's, and its own are higher; give one"):
        configure("demo", 10**6, {"optimizer": "lamb"})
    assert configure("demo", 10**6, {"optimizer": "lars", "lr": 2.0}).lr == 2.0
    assert set(optimizers.OTHERS) | set(adam.NAMES) == set(NAMES)
