"""What is trained: a model, its optimizer and its loader, one step of them, and their state for checkpoints."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from amdim.engine import checkpoint, compile, precision, runs
from amdim.engine.distributed.ddp import from_all, parallel
from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.monitor import flops, memory
from amdim.engine.monitor.metrics import Metrics
from amdim.engine.nan_guard import NonFiniteGuard, NotFinite
from amdim.engine.optim import adam, optimizers
from amdim.engine.optim.ema import ModelEma
from amdim.engine.optim.lr_schedule import learning_rate
from amdim.engine.runs import Config
from amdim.model import AMDIM
from amdim.model.collectives import rank, world_size

if TYPE_CHECKING:
    from amdim.pipeline import TwoViewLoader

LEAST_SCALE = 2.0**-10  # 26 halvings of what it starts with


class Trainer:
    """A model, its optimizer and its loader, and where they stand."""

    def __init__(
        self,
        config: Config,
        loader: TwoViewLoader,
        where: DistEnv,
        recompute: bool = False,
    ) -> None:
        preset = config.settings
        torch.manual_seed(config.seed)
        torch.backends.cudnn.benchmark = True  # shapes never change; which kernels are fastest is found out once
        classes = len(loader.manifest.classes)
        mixture = preset.mixture, preset.mixture_mode, preset.mixture_alpha
        model = AMDIM(preset.encoder, classes, preset.clip, *mixture).to(where.device)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recompute:
            self.model.encoder.recompute()
        self.compiling = compile.choose(config.compiled, where.device, recompute)
        self.compiling.apply(self.model.encoder)
        self.precision = precision.choose(config.amp, where.device)
        self.scaler = self.precision.scaler(where.device)
        scaled = self.scaler.is_enabled()
        self.optimizing = optimizers.make(config.kernel, self.model, preset, where.device, scaled)
        self.optimizer = self.optimizing.optimizer
        self.average = ModelEma(self.model, preset.ema) if preset.ema else None
        self.config, self.loader, self.device, self.where = config, loader, where.device, where
        self.meter, self.watch = Metrics(where.device), NonFiniteGuard(where.device)
        self.step = 0
        self.parallel: nn.Module = self.model

    def join(self) -> None:
        """From here on all ranks take the same steps, from the weights that rank 0 has."""
        self.parallel = parallel(self.model, self.device, self.config.compress)

    def update(self, x1: Tensor, x2: Tensor, label: Tensor, locations: Tensor) -> None:
        """One optimizer step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        if self.precision.dtype is None:  # a GPU's views come in half precision
            x1, x2 = x1.float(), x2.float()
        with self.precision.autocast(self.device):
            losses = self.parallel(x1, x2, label, locations)
        self.optimizer.zero_grad()
        self.scaler.scale(losses.total).backward()
        self.scaler.unscale_(self.optimizer)  # nothing but in float16
        norm = self.clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.step)
        self.step += 1
        # A float16 step whose gradient overflowed is skipped, and the next has a lower scale.
        self.watch.note(self.step, [losses.total] if self.scaler.is_enabled() else [losses.total, norm])
        self.meter.add(losses, norm)

    def clip(self) -> Tensor:
        """The norm that the gradient of all ranks' images had before it was clipped, on its device; nothing waits for it."""
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if self.config.settings.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(weights, self.config.settings.grad_clip, norm)
        return norm

    def scale(self) -> dict[str, float]:
        """The loss scale of float16, which waits for the device.

        Raises:
            NotFinite: it has fallen so low that gradients overflow whatever it is.
        """
        if not self.scaler.is_enabled():
            return {}
        scale = self.scaler.get_scale()
        if scale < LEAST_SCALE:
            raise NotFinite(
                f"gradients overflow float16 at step {self.step:,}, even {scale:g} times as large; the last checkpoint is good: "
                "try --amp bf16 or off with another --run"
            )
        return {"loss_scale": scale}

    def rates(self, images_per_s: float) -> dict[str, Any]:
        """For the log: what that many images a second of all ranks mean, and the memory they take."""
        found = flops.rates(images_per_s, self.an_image, world_size(), flops.peak(self.device, self.precision.dtype is not None))
        return found | {"memory_gib": memory.peak(self.device)[0] / 2**30}

    @cached_property
    def an_image(self) -> float:
        return flops.operations(self.config.settings.encoder)

    @property
    def learning_rate(self) -> float:
        return learning_rate(self.config.settings, self.step, self.config.steps)

    def state_dict(self) -> dict[str, Any]:
        """All that decides the rest of the run, but for the weights. Every rank must ask for it, and all get the same."""
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "step": self.step,
            "optimizer": adam.state_dict(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "loader": self.loader.state_dict(),
            "meter": self.meter.state_dict(),
            "rng": from_all(rng),
            "machine": self.machine,
        }

    @property
    def machine(self) -> dict[str, str]:
        """What the last bits of the numbers depend on, beside the configuration."""
        means = {"precision": self.precision.name, "optimizer": self.optimizing.kernel, "compiled": str(self.compiling.on)}
        means["views"] = self.loader.form
        return runs.machine(self.device) | means | {"ranks": str(world_size()), "gradients": self.config.compress}

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Continues exactly where ``saved`` was.

        Raises:
            UsageError: it was saved with other data, views, batch or seed.
        """
        state = saved.trainer
        self.loader.load_state_dict(state["loader"])
        self.model.load_state_dict(saved.weights)
        self.step = state["step"]
        adam.load_state_dict(self.optimizer, state["optimizer"])
        if state["scaler"]:  # empty where there was nothing to scale
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.meter.load_state_dict(state["meter"])
        # What is random is drawn for the whole batch, from generators that all ranks keep in step: others may take them over.
        rng = state["rng"][rank() % len(state["rng"])]
        torch.set_rng_state(rng["cpu"])
        if "cuda" in rng and self.device.type == "cuda":
            torch.cuda.set_rng_state(rng["cuda"], self.device)
