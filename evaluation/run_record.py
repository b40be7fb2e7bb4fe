"""What a run's directory says of it: its configuration, its log, and what probes found, in ``eval-<probe>.json``."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from amdim.engine import runs
from amdim.engine.checkpoint import steps
from amdim.engine.json_file import read_json
from amdim.engine.monitor.metrics_logger import FILE, read_rows
from amdim.errors import UsageError

TERMS = {"loss_1t5": "1→5", "loss_1t7": "1→7", "loss_5t5": "5→5", "loss_mixture": "mixture"}
ONLINE = {"linear_top1": "linear", "mlp_top1": "MLP"}
NAMES = {"linear": "linear", "mlp": "MLP", "knn": "k nearest neighbours", "finetune": "fine-tuned"}


class RunRecord(NamedTuple):
    """Of one run. ``trained`` are the steps of its newest checkpoint, 0 without one."""

    name: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]
    trained: int

    @property
    def step(self) -> int:
        """How far it has come, by its log or its checkpoints."""
        return max(self.trained, self.rows[-1]["step"] if self.rows else 0)

    @property
    def data(self) -> str:
        """The name of what it was trained on; empty for an imported run."""
        return Path(self.config["data"] or "").name

    def elsewhere(self, result: dict[str, Any]) -> str:
        """The name of the data that a result is of; empty where they are the run's own, or that has none, as it was imported."""
        name = Path(str(result.get("data", self.data))).name
        return name if self.data and name != self.data else ""

    def marks(self, result: dict[str, Any]) -> list[str]:
        """What sets a result apart from the run's own: other data, another way, other weights than its newest."""
        step, checkpoint = result.get("step", self.step), Path(result.get("checkpoint", ""))
        others = len(checkpoint.parents) > 1 and checkpoint.parents[1].name != Path(result["run"]).name
        found = [f"on {self.elsewhere(result)}"] if self.elsewhere(result) else []
        found += [way(result)] if way(result) else []
        found += [f"split {result['split']}"] if result.get("split", "val") != "val" else []
        found += [f"step {step:,}"] if step != self.step else []
        found += [f"weights of {checkpoint}"] if others else []
        found += ["last weights"] if self.config["settings"].get("ema") and not result.get("averaged", True) else []
        return found

    def current(self, weights: str | None) -> dict[str, dict[str, Any]]:
        """The results that are of these weights, and of the data that they were trained on."""
        return {
            probe: result
            for probe, result in self.results.items()
            if result.get("weights") == weights and not self.elsewhere(result)
        }

    @property
    def images_per_s(self) -> float | None:
        """Median over all log rows but the first, in which kernels are chosen and caches are cold."""
        values = [row["images_per_s"] for row in self.rows[1:] or self.rows if "images_per_s" in row]
        return median(values) if values else None


def read_record(run: Path) -> RunRecord:
    """
    Raises:
        UsageError: no run is there.
    """
    config = runs.read_config(run)
    if not isinstance(config.get("settings"), dict):
        raise UsageError(f"{run}: no run here; name one, as in runs/demo, or train one with `python train.py`")
    saved = steps(run / "checkpoints")[:1]
    trained = int(saved[0].name[5:]) if saved else 0
    return RunRecord(run.name, config, read_rows(run), read_results(run), trained)


def terms(rows: list[dict[str, Any]], config: dict[str, Any]) -> dict[str, str]:
    """Names of the terms of the loss that a run logged, in words; 1→7 is only watched where a mixture stands in its place."""
    settings = config.get("settings") or {}
    watched = settings.get("mixture") and settings.get("mixture_mode") == "replace"
    there = {name: label for name, label in TERMS.items() if any(row.get(name) for row in rows)}
    return {name: f"{label} (not trained)" if watched and name == "loss_1t7" else label for name, label in there.items()}


def recorded(name: str | None) -> Path:
    """The named run, or else the one that was begun or went on last, with or without a checkpoint.

    Raises:
        UsageError: there is none.
    """
    if name is not None:
        return runs.run_path(name)
    found = [path for pattern in ("config.json", FILE) for path in runs.RUNS.glob(f"*/{pattern}")]
    if not found:
        raise UsageError(f"{runs.RUNS}/: holds no run yet; train one with `python train.py`")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def read_results(run: Path) -> dict[str, dict[str, Any]]:
    """By probe, in the order of NAMES; a file that is no result, as one half-written by another program, is passed over."""
    found = {}
    for path in sorted(run.glob("eval-*.json"), key=order):
        result = read_json(path)
        if isinstance(result.get("top1"), float):
            found[path.stem.removeprefix("eval-")] = result
    return found


def order(path: Path) -> tuple[int, str]:
    name = path.stem.removeprefix("eval-")
    return (list(NAMES).index(name) if name in NAMES else len(NAMES)), name


def way(result: dict[str, Any]) -> str:
    """How a probe was trained, where that is not the default: accuracies of different ways are not to be compared."""
    epochs = (result.get("chosen") or {}).get("epochs")
    if result.get("protocol") in ("paper", "finetune") and epochs:
        protocol = "paper's protocol, " if result["protocol"] == "paper" else ""
        return f"{protocol}{epochs:g} epoch{'s' * (epochs != 1)}"
    return f"{result['views']} augmented views" if result.get("views") else ""


def top1(result: dict[str, Any]) -> str:
    """``87.80%``, and its 95 % interval where one is known: ``87.80% (87.1–88.4)``."""
    interval = result.get("interval")
    return f"{result['top1']:.2%}" + (f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})" if interval else "")
