"""The ways to make views: DALI's graph on any device, which Triton's kernels end on a GPU; or DALI's decoder and torch's pixels,
which is faster on a CPU.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from amdim.errors import GPU_FAULTS, UsageError, UserError, is_shortage
from amdim.pipeline.augment import dali_graph
from amdim.pipeline.augment.cpu import CpuAugmenter
from amdim.pipeline.augment.gpu import augment_on_gpu, is_available, tables
from amdim.pipeline.augment.recipes import Recipe
from amdim.pipeline.augment.view_params import ViewParams
from amdim.pipeline.cuda_keepalive import KeepAlive
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.prefetch import prefetch_in_thread
from amdim.pipeline.sample_store import SampleStore

PIXELS = ("auto", "dali", "torch")
PREFETCH = 1  # batches made ahead of the one in use: enough for making and using to overlap, at one batch more in memory


BACKENDS = {  # by the form of views: who makes them, and why, for the start-up table
    "torch": "DALI decodes, torch does the rest (several times faster on a CPU than DALI's graph)",
    "graph": "DALI's graph (on a GPU, Triton's kernels are faster: they want Triton, a C compiler, compute capability 8.0)",
    "Triton": "DALI decodes and resamples, Triton does the rest (a kernel or three instead of hundreds)",
}


class BatchRequest(NamedTuple):
    """A batch to make: encoded images, the draws of each view of them, and the error to raise of the i-th image for a reason.

    ``tables``, of each view, is what Triton's kernels take of its draws.
    """

    encoded: list[np.ndarray]
    draws: list[ViewParams]
    blame: Callable[[int, str], UserError] | None = None
    tables: Sequence[Any] = ()


def batch_request(store: SampleStore, samples: np.ndarray, draws: list[ViewParams]) -> BatchRequest:
    """A batch of samples (B,) of a store."""
    return BatchRequest(store.batch(samples), draws, lambda i, what: store.broken(samples[i], what))


def choose_backend(pixels: str, device: torch.device) -> str:
    """The back-end for ``--pixels``: DALI on a GPU, torch elsewhere.

    Raises:
        UsageError: for another name, or torch's pixels on a GPU.
    """
    if pixels not in PIXELS:
        raise UsageError(f"--pixels {pixels}: give one of {', '.join(PIXELS)}")
    if pixels == "torch" and device.type == "cuda":
        raise UsageError("--pixels torch: is for the CPU; leave it out, and DALI makes the views on the GPU")
    return ("dali" if device.type == "cuda" else "torch") if pixels == "auto" else pixels


def backend_name(pixels: str, device: torch.device) -> str:
    """What ends the views of a back-end: "torch", "graph" or "Triton"."""
    return "torch" if pixels == "torch" else "Triton" if is_available(device) else "graph"


def make_views(
    jobs: Iterator[BatchRequest],
    recipe: Recipe,
    views: int,
    batch: int,
    device: torch.device,
    pixels: str,
    threads: int,
    root: ShardedDataset,
    prefetch: int = PREFETCH,
) -> Iterator[list[Tensor]]:
    """For each job, its views (B, 3, S, S), channels-last; ``prefetch`` batches are made ahead of the one in use.

    A batch is good until the one after it is asked for. An error in making a job is raised in its place, whoever was ahead.

    Raises:
        UserError: an image could not be decoded.
    """
    options = device_options(device, threads)
    if pixels == "dali":
        return dali_views(jobs, recipe, views, batch, options, root, prefetch)
    return torch_views(jobs, recipe, batch, options, root, prefetch)


def dali_views(
    jobs: Iterator[BatchRequest],
    recipe: Recipe,
    views: int,
    batch: int,
    options: dict[str, Any],
    root: ShardedDataset,
    prefetch: int,
) -> Iterator[list[Tensor]]:
    """By DALI's graph, which works ahead by itself; bytes and draws come from a thread. On a GPU Triton ends the views."""
    device = torch.device("cpu") if options["device_id"] is None else torch.device("cuda", options["device_id"])
    whole, in_use = not is_available(device), KeepAlive(device)

    def inputs(job: BatchRequest) -> tuple[BatchRequest, list[Any]]:
        fed = [job.encoded, *(part for view in job.draws for part in dali_graph.feed(recipe, view, whole))]
        return job if whole else job._replace(tables=[tables(recipe, view, device) for view in job.draws]), fed

    source = DaliSource(prefetch_in_thread(map(inputs, jobs), prefetch))
    pipe = dali_graph.build(source, recipe, views, batch, **options, prefetch=prefetch + 1, whole=whole)
    try:
        for job, outputs in run_pipeline(pipe, source, recipe, options, root):
            arrays = [torch.from_dlpack(output.as_tensor()) for output in outputs]  # over DALI's memory, (B, S, S, 3)
            try:
                yield [array.permute(0, 3, 1, 2) for array in arrays] if whole else list(map(augment_on_gpu, arrays, job.tables))
            finally:
                in_use.hold(*arrays)
    finally:
        in_use.release()


def torch_views(
    jobs: Iterator[BatchRequest], recipe: Recipe, batch: int, options: dict[str, Any], root: ShardedDataset, prefetch: int
) -> Iterator[list[Tensor]]:
    """DALI decodes, a batch ahead of what is painted; all of it is done by a thread."""
    source = DaliSource((job, [job.encoded]) for job in jobs)
    pipe = dali_graph.build(source, recipe, 0, batch, **options)
    painter = CpuAugmenter(recipe, options["threads"])
    decoded = run_pipeline(pipe, source, recipe, options, root)
    return prefetch_in_thread(
        (painter.views([np.asarray(image) for image in images], job.draws) for job, (images,) in decoded), prefetch
    )


class DaliSource:
    """What DALI calls for its inputs, some batches ahead of the one it delivers. An error in making them waits for its turn.

    Attributes:
        waiting: the jobs that DALI has and has not delivered.
        error: what ended the jobs too soon; it belongs to the step after the last that waits.
    """

    def __init__(self, inputs: Iterator[tuple[BatchRequest, list[Any]]]) -> None:
        self.inputs = inputs
        self.waiting: deque[BatchRequest] = deque()
        self.error: Exception | None = None

    def __call__(self) -> list[Any]:
        try:
            job, inputs = next(self.inputs)
        except Exception as error:
            self.error = None if isinstance(error, StopIteration) else error
            raise StopIteration from error  # DALI then delivers what it has, and no more
        self.waiting.append(job)
        return inputs


def run_pipeline(
    pipe: Any, source: DaliSource, recipe: Recipe, options: dict[str, Any], root: ShardedDataset
) -> Iterator[tuple[BatchRequest, Any]]:
    """Each job with what a graph makes of it.

    Raises:
        UserError: DALI could not decode an image; a shard is damaged, as images are checked when they are written.
    """
    try:
        while (outputs := next_outputs(pipe, options["device_id"])) is not None:
            yield source.waiting.popleft(), outputs
    except RuntimeError as error:
        if is_shortage(error) or any(sign in str(error) for sign in GPU_FAULTS):
            raise  # no image's fault: who runs the ranks may start them again
        raise decode_error(source.waiting[0], str(error), recipe, options, root) from error
    finally:
        source.inputs = iter(())  # DALI's operators hold the source in a circle: let go of the thread behind it
    if source.error is not None:
        raise source.error


def next_outputs(pipe: Any, gpu: int | None) -> Any:
    """The next outputs of a graph, None after the last. On a GPU, in the order of torch's stream: nothing waits on the host."""
    try:
        return pipe.run() if gpu is None else pipe.run(torch.cuda.current_stream(gpu))
    except StopIteration:
        return None


def decode_error(job: BatchRequest, message: str, recipe: Recipe, options: dict[str, Any], root: ShardedDataset) -> UserError:
    """The error for a batch that DALI gave up with a message, which says why but not of which image."""
    reason = (message.partition("encountered:")[2].strip() or message.strip()).partition("\n")[0]
    i = find_undecodable(job, recipe, options)
    if i is None or job.blame is None:
        return UserError(f"{root}: a batch could not be made ({reason}); {root.mend}")
    return job.blame(i, f"cannot be decoded ({reason})")


def find_undecodable(job: BatchRequest, recipe: Recipe, options: dict[str, Any]) -> int | None:
    """The first image of a batch that DALI cannot decode by itself."""
    images = iter(job.encoded)
    pipe = dali_graph.build(lambda: [[next(images)]], recipe, 0, 1, **options, prefetch=1)
    for i in range(len(job.encoded)):
        try:
            pipe.run()
        except RuntimeError:
            return i
    return None


def device_options(device: torch.device, threads: int) -> dict[str, Any]:
    gpu = device.type == "cuda"
    return {"device": "gpu" if gpu else "cpu", "device_id": (device.index or 0) if gpu else None, "threads": threads}


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
