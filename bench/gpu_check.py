"""Does it work on this GPU?  make gpu-check [PYTHON=python3]

Needs no set-up and no network: runs what can be imported, and lists what was skipped and why. Exit code 1 if a check failed.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from bench import gpu_commands, gpu_views
from bench.gpu_skip import Skip, need, need_gpu


def device() -> str:
    """torch and its GPU."""
    need_gpu()
    import torch

    major, minor = torch.cuda.get_device_capability()
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name()}, sm_{major}{minor}, {memory:.0f} GiB, torch {torch.__version__}"


def objective() -> str:
    """The objective's primitive on the GPU, in plain torch, equals the CPU's, gradients too."""
    need_gpu()
    import torch

    vectors = torch.randn(64, 128, dtype=torch.float64), torch.randn(64, 49, 128, dtype=torch.float64)
    worst = difference(partition(*vectors, "cuda", "torch"), partition(*vectors, "cpu", "torch"))
    assert worst < 1e-10, f"relative difference {worst:.1e}"
    return f"relative difference {worst:.1e} in float64"


def kernels() -> str:
    """The objective's Triton kernels equal plain torch as well as plain torch equals float64, gradients too."""
    need_gpu()
    need("triton", "amdim.model.nce_triton")
    import torch

    lines = []
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 5e-3)):
        vectors = torch.randn(100, 512).to(dtype), torch.randn(70, 49, 512).to(dtype)  # no multiple of any tile
        exact = partition(vectors[0].double(), vectors[1].double(), "cuda", "torch")
        triton, plain = (difference(partition(*vectors, "cuda", form), exact) for form in ("triton", "torch"))
        assert triton < max(bound, 3 * plain), f"{dtype}: {triton:.1e} from float64, plain torch {plain:.1e}"
        lines.append(f"{str(dtype).removeprefix('torch.')} {triton:.1e} (plain torch {plain:.1e})")
    return f"relative difference to float64: {', '.join(lines)}"


def partition(sources: Any, targets: Any, where: str, form: str) -> list[Any]:
    """A loss of ``model.streaming_nce`` and its gradients on a device, in float64 on the CPU."""
    import torch

    from amdim.model.streaming_nce import nce_sums as parts_of

    s, t = (x.to(where).requires_grad_() for x in (sources, targets))
    owner = torch.arange(len(s), device=where) % len(t)
    parts = parts_of(s, owner, t, 20.0, form)
    loss = torch.log1p(parts.negatives[:, None] * torch.exp(-parts.positives)).mean() + 1e-6 * parts.sum_of_squares
    gradients = torch.autograd.grad(1024 * loss, (s, t))  # scaled, or float16 could not hold them
    return [x.detach().double().cpu() for x in (loss, *gradients)]


def difference(found: list[Any], expected: list[Any]) -> float:
    """The largest relative difference, by the largest number of each tensor."""
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected, strict=True))


def encoder() -> str:
    """Encoder on the GPU equals the CPU's in float32, with gradients, whose plain operations are not the CPU's products."""
    need_gpu()
    import torch

    torch.backends.cudnn.allow_tf32 = False
    worst = difference(encoded("cuda"), encoded("cpu"))
    assert worst < 1e-3, f"features or gradients differ by {worst:.1e} of the largest"
    return f"features and gradients differ by at most {worst:.1e} of the largest"


def encoded(where: str) -> list[Any]:
    """Features of an encoder of random weights, and gradients of all but biases before a batch norm, which are zero."""
    import torch

    from amdim.model.encoder import Encoder, EncoderConfig

    torch.manual_seed(0)
    network: Any = Encoder(EncoderConfig(64, 16, 128, 2))
    for weight in network.parameters():  # the units' second convolutions start at zero, which would hide the first ones
        torch.nn.init.normal_(weight, 1.0 if weight.dim() == 1 else 0.0, 0.1)
    x = torch.randn(8, 3, 64, 64)
    weights = [torch.randn(shape) for shape in ((8, 128, 1, 1), (8, 128, 5, 5), (8, 128, 7, 7))]
    moved = network.to(where).to(memory_format=torch.channels_last)
    features = list(moved(x.to(where, memory_format=torch.channels_last)))
    total = sum((y * w.to(where)).sum() for y, w in zip(features, weights, strict=True))
    named = [weight for name, weight in moved.named_parameters() if not name.endswith("shortcut.bias")]
    return [each.detach().double().cpu() for each in (*features, *torch.autograd.grad(total, named))]


def training() -> str:
    """A training step with AMP, channels-last and fused Adam lowers the loss."""
    need_gpu()
    (first, *_, last), rate, memory = thirteen_steps(lambda _: None)
    assert last < first, f"the loss went from {first:.2f} to {last:.2f}"
    return f"loss {first:.2f} to {last:.2f}; {rate:.0f} images/s, batch 120, w 192, bf16, eager; {memory:.1f} GiB"


def finite() -> str:
    """A number that is none is noticed a few steps later, and nothing waits for the GPU."""
    need_gpu()
    import torch

    from amdim.engine.nan_guard import NonFiniteGuard, NotFinite

    watch, good, said = NonFiniteGuard(torch.device("cuda")), torch.ones((), device="cuda"), "nothing"
    work = torch.randn(2048, 2048, device="cuda")
    for step in range(1, 1001):
        work = (work @ work).clamp(-1, 1)  # some milliseconds, as a step has
        watch.note(step, [good * float("nan") if step == 10 else good])
        try:
            watch.check()
        except NotFinite as error:
            said = str(error)
            break
        time.sleep(0.001)
    assert "at step 10;" in said, said
    return f"step 10 was not finite, noticed at step {step}"


def compiled() -> str:
    """The compiled encoder trains as the plain one does."""
    need_gpu()
    need("typer")
    import torch

    from amdim.engine import compile

    choice = compile.choose("auto", torch.device("cuda"))
    if not choice.on:
        raise Skip(choice.reason)
    plain, *_ = thirteen_steps(lambda _: None)
    losses, rate, memory = thirteen_steps(lambda model: choice.apply(model.encoder))
    worst = max(abs(a / b - 1) for a, b in zip(losses, plain, strict=True))
    assert worst < 0.03, f"losses differ by {worst:.1%}"  # bfloat16 rounds in other places
    return f"losses differ by at most {worst:.2%} in 13 steps; {rate:.0f} images/s; {memory:.1f} GiB"


def thirteen_steps(prepare: Callable[[Any], None]) -> tuple[list[float], float, float]:
    """Losses of the paper's small encoder on noise, images/s of the last ten steps, and GiB at most."""
    import torch

    from amdim.model import AMDIM, EncoderConfig

    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    model: Any = AMDIM(EncoderConfig(128, 192, 1536, 8), classes=10)
    model = model.to("cuda").to(memory_format=torch.channels_last)
    prepare(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    batch = 120
    x1, x2 = (torch.randn(batch, 3, 128, 128, device="cuda").to(memory_format=torch.channels_last) for _ in range(2))
    labels, locations = torch.arange(batch, device="cuda") % 10, torch.randint(25, (2, batch), device="cuda")
    losses, start = [], 0.0
    for step in range(13):
        if step == 3:
            torch.cuda.synchronize()
            start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(x1, x2, labels, locations)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        optimizer.step()
        losses.append(loss.objective.total.detach())
    torch.cuda.synchronize()
    rate = 10 * batch / (time.perf_counter() - start)
    return [loss.item() for loss in losses], rate, torch.cuda.max_memory_allocated() / 2**30


def optimizer() -> str:
    """Adam's fused kernels equal plain torch's after ten steps: torch's, and apex's where it works."""
    need_gpu()
    need("typer")
    import torch

    from amdim.engine.optim import adam
    from amdim.engine.presets import PRESETS
    from amdim.errors import UsageError

    device, plain, lines = torch.device("cuda"), ten_steps(None), []
    for kernel in adam.KERNELS:
        try:
            make = partial(adam.make, kernel, preset=PRESETS["imagenet-small"], device=device)
            weights, seconds = ten_steps(make)
        except UsageError as error:
            lines.append(f"{kernel}: {error}")
            continue
        worst = difference(weights, plain[0])
        assert worst < 1e-5, f"{kernel}: relative difference {worst:.1e}"
        lines.append(f"{kernel} {1e3 * seconds:.2f} ms a step, relative difference {worst:.1e}")
    return f"{'; '.join(lines)}; unfused {1e3 * plain[1]:.2f} ms"


def ten_steps(make: Callable[..., Any] | None) -> tuple[list[Any], float]:
    """Weights of the paper's small encoder after ten steps of one gradient, and seconds a step; None is plain torch."""
    import torch

    from amdim.engine.presets import PRESETS
    from amdim.model import Encoder

    torch.manual_seed(0)
    preset, network = PRESETS["imagenet-small"], Encoder(PRESETS["imagenet-small"].encoder)
    weights = list(network.to("cuda").to(memory_format=torch.channels_last).parameters())  # type: ignore[call-overload]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    options: dict[str, Any] = {"lr": preset.lr, "betas": (preset.beta1, preset.beta2), "weight_decay": preset.weight_decay}
    optimizer = make(weights=weights).optimizer if make else torch.optim.Adam(weights, foreach=False, **options)
    optimizer.step()  # makes the state
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(9):
        optimizer.step()
    torch.cuda.synchronize()
    return [weight.detach().double().cpu() for weight in weights], (time.perf_counter() - start) / 9


def waiting() -> str:
    """No step of training waits for the GPU, in any precision."""
    need("nvidia.dali", "typer", "PIL", "tensorboard")
    need_gpu()
    import torch

    from amdim import train
    from amdim.engine.distributed.dist_env import DistEnv
    from amdim.engine.presets import PRESETS
    from amdim.engine.runs import Config

    device, preset = torch.device("cuda", 0), PRESETS["fashion-mnist"]
    loader: Any = SimpleNamespace(manifest=SimpleNamespace(classes=["a", "b"]))
    x1, x2 = (torch.randn(32, 3, 32, 32, dtype=torch.half, device=device).to(memory_format=torch.channels_last) for _ in range(2))
    for amp in ("bf16", "fp16", "off"):
        trainer = train.Trainer(Config("", "", preset, 100, 0, amp, "", compiled="off"), loader, DistEnv(0, 1, device))
        for step in range(4):
            torch.cuda.set_sync_debug_mode("error" if step else "default")  # the first step compiles and tunes kernels
            try:
                label, locations = (train.send(torch.zeros(shape, dtype=torch.int64), device) for shape in (32, (2, 32)))
                trainer.update(x1, x2, label, locations)
                trainer.watch.check()
            finally:
                torch.cuda.set_sync_debug_mode("default")
    return "bf16, fp16 and float32, as far as torch's own debug mode sees"


CHECKS: tuple[Callable[[], str], ...] = (
    device,
    objective,
    kernels,
    encoder,
    optimizer,
    training,
    finite,
    compiled,
    waiting,
    gpu_views.painting,
    gpu_views.views,
    gpu_views.hand_over,
    gpu_views.memory,
    gpu_views.loading,
    gpu_commands.commands,
    gpu_commands.ranks,
)


def main() -> int:
    failed = 0
    for check in CHECKS:
        title = (check.__doc__ or check.__name__).strip().rstrip(".")
        try:
            print(f"passed   {title}: {check()}")
        except Skip as reason:
            print(f"skipped  {title}: {reason}")
        except Exception:
            failed += 1
            print(f"FAILED   {title}:\n{traceback.format_exc()}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
