"""Trains on a CUDA device that does not exist: python session.py SHIM LOG_EVERY PRESET,AMP,FORM,FAULT…

The shim must be loaded before torch, so this is a process of its own. Tensors are fake: they have a shape, a type, a device and a
memory layout, and no values. Whatever asks for a value (item, bool, tolist, nonzero, a mask as an index) raises, and so do
operations on tensors of two devices, as CUDA would. Copies between devices pass a fake tensor by: ``Transfers`` watches those.
"""

import ctypes
import json
import sys
import traceback
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

TORCH = Path(find_spec("torch").submodule_search_locations[0])

for library in (TORCH / "lib" / "libtorch_cpu.so", Path(sys.argv[1])):
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from amdim import train  # noqa: E402
from amdim.engine.async_checkpointer import AsyncCheckpointer  # noqa: E402
from amdim.engine.distributed.dist_env import DistEnv  # noqa: E402
from amdim.engine.distributed.rank_coordinator import RankCoordinator  # noqa: E402
from amdim.engine.presets import PRESETS  # noqa: E402
from amdim.engine.runs import Config  # noqa: E402
from amdim.pipeline import Views  # noqa: E402

CUDA, BATCH = torch.device("cuda", 0), 6


class Transfers(TorchDispatchMode):
    """Raises at copies that the host waits for: from the device, and to it from memory that is not pinned."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if function is torch.ops.aten.copy_.default else args[0]
            pair = (source.device.type, out.device.type)
            lands_pinned = function is torch.ops.aten.copy_.default and hasattr(args[0], "pinned") and args[2:] == (True,)
            if pair == ("cuda", "cpu") and not lands_pinned:
                raise HostCopy("from the GPU to the host")
            if pair == ("cpu", "cuda") and not hasattr(source, "pinned"):
                raise HostCopy("to the GPU from memory that is not pinned")
        return out


class HostCopy(Exception):
    """A copy between devices that waits."""


class Launch(Exception):
    """A Triton kernel was given a tensor of another device."""


def launch(_kernel, *arguments, **_):
    """In a Triton kernel's place: nothing is computed, and fake tensors have no memory to write to."""
    if strangers := [tensor.device for tensor in arguments if isinstance(tensor, torch.Tensor) and tensor.device != CUDA]:
        raise Launch(f"arguments on {strangers}")
    launch.count += 1


def pin(tensor):
    tensor.pinned = True
    return tensor


class Loader:
    """What DALI delivers: half-precision channels-last views on the GPU, labels on the host."""

    def __init__(self, side):
        self.manifest = SimpleNamespace(classes=[f"class {i}" for i in range(10)])
        self.recipe = SimpleNamespace(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
        self.side, self.batch, self.epoch, self.step = side, BATCH, 0, 0

    def __len__(self):
        return 100

    def __iter__(self):
        shape = (BATCH, 3, self.side, self.side)
        for _ in range(len(self)):
            self.step += 1
            x1, x2 = (torch.empty(shape, dtype=torch.half, device=CUDA).to(memory_format=torch.channels_last) for _ in range(2))
            yield Views(x1, x2, torch.zeros(BATCH, dtype=torch.int64))

    def locations(self, _epoch, _step):
        return torch.zeros(2, BATCH, dtype=torch.int64)


class Event:
    """Of a GPU whose work is never done: what waits for it to be would wait for ever."""

    asked = 0

    def query(self):
        Event.asked += 1
        return Event.asked == 1  # nothing was recorded yet

    def record(self):
        pass


def patch():
    """What the shim cannot give. Modules are made on the device, so that moving them there has nothing to do."""
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda **_: True
    torch.nn.Module.to = lambda self, *_, **__: self
    torch.Tensor.pin_memory = pin
    torch.cuda.Event = Event
    torch.cuda._exchange_device = torch.cuda._maybe_exchange_device = lambda _: 0
    if find_spec("triton"):
        from triton.runtime.jit import JITFunction

        JITFunction.run = launch
    train.LOG_EVERY = int(sys.argv[2])


PRESETS["mixtures"] = replace(PRESETS["fashion-mnist"], mixture=2)
for name in ("adamw", "lamb", "lars"):
    PRESETS[name] = replace(PRESETS["fashion-mnist"], optimizer=name, decay_biases=False, grad_clip=1.0, ema=0.99)


def make_trainer(preset, amp):
    config = Config("data", preset, PRESETS[preset], 100, 0, amp, "10m", compiled="off")
    with CUDA:
        return train.Trainer(config, Loader(config.settings.encoder.size), DistEnv(0, 1, CUDA))


def after(module, act):
    """Acts on what a module returns."""

    def hook(_module, _inputs, output):
        act(output)

    module.register_forward_hook(hook)


def first_layer(trainer):
    return next(module for module in trainer.model.encoder.modules() if isinstance(module, torch.nn.Conv2d))


def fit(preset, amp, fault):
    """Trains until something raises; a healthy loop does so at its first log step, which reads the losses."""
    seen, launch.count = {"computes_in": None}, 0
    with FakeTensorMode(), TemporaryDirectory() as run:
        trainer = make_trainer(preset, amp)
        after(first_layer(trainer), lambda output: seen.update(computes_in=str(output.dtype)))
        fault(trainer)
        progress = SimpleNamespace(begin=lambda _: None, tick=lambda _: None, show=lambda _: None)
        stop = SimpleNamespace(code=None)
        try:
            with Transfers():
                train.fit(
                    trainer, Path(run), progress, stop, lambda _: False, RankCoordinator(), AsyncCheckpointer(Path(run), {})
                )
        except Exception as error:
            seen |= {"raised": type(error).__name__, "says": str(error), "where": where(error)}
        weights = list(trainer.model.parameters())
        state = [value for each in trainer.optimizer.state.values() for value in each.values()]
        seen |= {
            "steps": trainer.step,
            "gradients": kinds([weight.grad for weight in weights if weight.grad is not None]),
            "without_gradient": sum(weight.grad is None for weight in weights),
            "optimizer": kinds(state),
            "scaled": trainer.scaler.is_enabled(),
            "launches": launch.count,
            "waits": getattr(trainer, "waits", None),
        }
    return seen


def where(error):
    """Names of the functions of ours that an error came through, below ``fit`` of train.py."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return [frame.name for frame in frames[2:] if frame.name != "__torch_dispatch__"]


def kinds(tensors):
    return sorted({f"{tensor.device} {tensor.dtype}" for tensor in tensors})


def none(trainer):
    """The program as it is."""


def host_buffer(trainer):
    trainer.model.encoder.to_1[-1].running_mean = torch.zeros(trainer.model.encoder.config.embedding)


def host_meter(trainer):
    trainer.meter.sums = trainer.meter.sums.new_zeros(len(trainer.meter.sums), device="cpu")


def item(trainer):
    after(trainer.model, lambda losses: losses.total.item())


def branch(trainer):
    after(trainer.model.encoder, lambda features: bool(features.r1.isnan().any()))


def mask(trainer):
    after(trainer.model.linear, lambda logits: logits[logits > 0])


def unpinned(trainer):
    after(trainer.model, lambda losses: torch.zeros(3).to(CUDA, non_blocking=True))  # noqa: ARG005


def copy_in_backward(trainer):
    def hook(gradient):
        gradient.cpu()

    next(trainer.model.parameters()).register_hook(hook)


def unfused(trainer):
    """A GradScaler asks the host whether to take the step, where the optimizer cannot find out on the GPU."""
    trainer.optimizer = torch.optim.Adam(trainer.model.parameters(), fused=False)


def counted(trainer):
    """Goes on beyond log steps: what waits there is counted with its step, and whatever waits elsewhere raises as ever."""
    trainer.waits = waits = []
    every, check = train.LOG_EVERY, trainer.watch.check

    def waiting(name, value):
        return lambda *_: waits.append((trainer.step, name)) or value

    def check_counted(wait=False):
        return waits.append((trainer.step, "check")) if wait else check()

    def picture(*_):
        waits.append((trainer.step, "pairs"))
        return torch.zeros(3, 8, 8)

    trainer.config = replace(trainer.config, steps=4 * every)
    trainer.meter.read = waiting("read", {"images_per_s": 1.0})
    trainer.scale, trainer.rates, trainer.watch.check = waiting("scale", {}), lambda _: {}, check_counted
    train.view_grid.picture, train.MetricsLogger = (
        picture,
        lambda *_: SimpleNamespace(write=lambda _: None, write_pairs=lambda *_: None, flush=lambda: None),
    )


def counted_and_branch(trainer):
    """A wait that only the third log interval has."""
    counted(trainer)
    encode = trainer.model.encoder
    after(encode, lambda features: trainer.step == 2 * train.LOG_EVERY + 1 and bool(features.r1.isnan().any()))


FAULTS = (none, counted, counted_and_branch, host_buffer, host_meter, item, branch, mask, copy_in_backward, unpinned, unfused)

if __name__ == "__main__":
    patch()
    by_name = {fault.__name__: fault for fault in FAULTS}
    for case in sys.argv[3:]:
        preset, amp, form, fault = case.split(",")
        sys.modules["amdim.model.streaming_nce"].chosen = lambda device, form=form: (form, f"this case's, on {device}")
        print(json.dumps(fit(preset, amp, by_name[fault])))
