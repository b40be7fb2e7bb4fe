"""Which Adam is chosen, and that the two are one function, whose state either can continue."""

import sys

import pytest
import torch

from amdim.engine.optim import adam
from amdim.engine.presets import PRESETS
from amdim.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PRESET = PRESETS["demo"]

PYPI = {"__init__.py": ""}  # PyPI's apex: a toolkit for web sites that has no optimizers
PYTHON_ONLY = {
    "__init__.py": "",
    "optimizers/__init__.py": """
class FusedAdam:
    def __init__(self, *_, **__):
        raise RuntimeError("apex.optimizers.FusedAdam requires cuda extensions")
""",
}
NO_EXTENSION = {"__init__.py": "", "optimizers/__init__.py": "import amp_C_that_was_not_built\n"}
OTHER_GPU = {
    "__init__.py": "",
    "optimizers/__init__.py": """
class FusedAdam:
    def __init__(self, *_, **__): pass
    def step(self): raise RuntimeError("CUDA error: no kernel image is available\\nfor execution on the device")
""",
}
# apex's interface and arithmetic (multi_tensor_adam.cu), one tensor after the other: one count of steps a group, weight decay as
# AdamW's unless told otherwise, zero_grad without arguments.
WORKING = {
    "__init__.py": "",
    "optimizers/__init__.py": """
import torch

class FusedAdam(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, adam_w_mode=True, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, bias_correction=True, betas=betas, eps=eps, weight_decay=weight_decay))
        self.adam_w_mode = adam_w_mode

    def zero_grad(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            (b1, b2), lr, decay = group["betas"], group["lr"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if len(state) == 0:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                g = p.grad if self.adam_w_mode else p.grad + decay * p
                m, v = state["exp_avg"], state["exp_avg_sq"]
                m.copy_(b1 * m + (1 - b1) * g)
                v.copy_(b2 * v + (1 - b2) * g * g)
                update = m / (1 - b1 ** group["step"]) / ((v / (1 - b2 ** group["step"])).sqrt() + group["eps"])
                p -= lr * (update + decay * p if self.adam_w_mode else update)
""",
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package named apex where Python looks first, and takes it away again."""

    def put(files):
        for name, text in files.items():
            path = tmp_path / "apex" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    forget()
    yield put
    forget()


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "apex"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "apex is not installed"),
        (PYPI, "is not NVIDIA's"),
        (PYTHON_ONLY, "does not work here (apex.optimizers.FusedAdam requires cuda extensions)"),
        (NO_EXTENSION, "does not work here (No module named 'amp_C_that_was_not_built')"),
        (OTHER_GPU, "does not work here (CUDA error: no kernel image is available)"),
        ({"__init__.py": "print 'for Python 2'\n"}, "does not work here"),
    ],
)
def test_an_apex_that_does_not_work_is_refused_by_its_reason(install, files, says):
    install(files)
    with pytest.raises(UsageError) as error:
        adam.find_apex(CPU)
    assert says in str(error.value)
    assert "make apex" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_that_works_is_taken(install):
    install(WORKING)
    assert adam.find_apex(CPU).__module__ == "apex.optimizers"


def test_torch_is_the_choice_unless_apex_is_asked_for(install, monkeypatch):
    install(WORKING)
    weights = [torch.nn.Parameter(torch.ones(3))]
    chosen = adam.make("torch", weights, PRESET, CPU)
    assert isinstance(chosen.optimizer, torch.optim.Adam)
    assert chosen.optimizer.defaults["fused"]
    assert chosen.kernel == "torch's fused kernel"
    monkeypatch.setattr(torch, "zeros", lambda size, **_: torch.ones(size))  # a weight to try it on, without a GPU
    chosen = adam.make("apex", weights, PRESET, CUDA)
    assert type(chosen.optimizer).__module__ == "apex.optimizers"
    assert chosen.kernel == "apex's fused kernel"
    assert not chosen.optimizer.adam_w_mode


@pytest.mark.parametrize(("asked", "says"), [("lamb", "give torch or apex"), ("apex", "on the CPU")])
def test_wrong_usage(asked, says):
    with pytest.raises(UsageError, match=says):
        adam.make(asked, [torch.nn.Parameter(torch.ones(3))], PRESET, CPU)


def make(kind):
    """An optimizer of fixed weights, channels-last and not: as ``adam.make`` would make it on a GPU."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 4, 3, 3), (8, 4, 1, 1), (5,), ()]
    weights = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    weights[0].data = weights[0].data.contiguous(memory_format=torch.channels_last)
    options = {"lr": 1e-2, "betas": (0.8, 0.999), "weight_decay": 0.1}
    if kind == "apex":
        return adam.find_apex(CPU)(weights, adam_w_mode=False, **options)
    return torch.optim.Adam(weights, fused=True, **options)


def weights_of(optimizer):
    return optimizer.param_groups[0]["params"]


def train(optimizer, first, last):
    """Steps ``first`` to ``last``, with gradients that depend on the weights, as a model's do."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        sum((weight.sin() * torch.randn(weight.shape, generator=generator)).sum() for weight in weights_of(optimizer)).backward()
        optimizer.step()
    return optimizer


def same(one, other):
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(weights_of(one), weights_of(other), strict=True))


def test_they_are_the_same_function(install):
    install(WORKING)
    assert same(train(make("torch"), 0, 20), train(make("apex"), 0, 20))


@pytest.mark.parametrize("before", adam.KERNELS)
@pytest.mark.parametrize("after", adam.KERNELS)
def test_either_continues_the_others_run(install, tmp_path, before, after):
    install(WORKING)
    whole = train(make(before), 0, 20)
    first, second = train(make(before), 0, 10), make(after)
    torch.save(adam.state_dict(first), tmp_path / "state.pt")
    train(first, 10, 20)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(first), weights_of(whole), strict=True)), "saving changed the state"
    for weight, value in zip(weights_of(second), weights_of(train(make(before), 0, 10)), strict=True):
        weight.data.copy_(value)
    adam.load_state_dict(second, torch.load(tmp_path / "state.pt", weights_only=True))
    assert same(train(second, 10, 20), whole)


def test_counts_of_steps_that_differ_are_refused(install):
    install(WORKING)
    saved = adam.state_dict(train(make("torch"), 0, 3))
    saved["state"][1]["step"] = torch.tensor(2.0)
    with pytest.raises(UsageError, match=r"\[2, 3\]"):
        adam.load_state_dict(make("apex"), saved)


def test_a_state_of_no_steps_is_continued_too(install):
    install(WORKING)
    for before, after in (("torch", "apex"), ("apex", "torch")):
        optimizer = make(after)
        adam.load_state_dict(optimizer, adam.state_dict(make(before)))
        assert same(train(optimizer, 0, 5), train(make("torch"), 0, 5))
