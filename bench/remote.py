"""Does training wait for a network?  python -m bench.remote [--seconds 60] [--rates 4,2,1.2,0.5]

A set of 48 shards behind a web server on loopback that sends so many bytes a second as the rate says: times what training reads,
which is the bytes of an image times images a second. A step is a wait of a fixed length, as on a GPU, so that the cores are
left to the loader and the server. The cache holds two windows of 8 shards: the set streams through it, and each epoch is fetched
anew.

For the directory and for each rate: seconds until the first batch; of the seconds after it, how many the loop waited for batches,
and how many the thread that makes them waited for shards; images a second.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Annotated

import typer

from amdim.errors import run_app
from amdim.pipeline import RECIPES, TwoViewLoader
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.remote_dataset import RemoteDataset, open_dataset
from amdim.pipeline.shard_schedule import working_set_bytes
from amdim.shards import plan
from amdim.shards.build import build
from amdim.shards.shapes.renderer import source
from bench.machine import describe

SAMPLES, SHARDS, BATCH, STEP = 9_600, 48, 64, 0.16  # a step in seconds: 400 images a second
PIECE = 16_384  # bytes sent at a time


class Throttled(BaseHTTPRequestHandler):
    """Files of a directory at a number of bytes a second, of all connections together."""

    protocol_version = "HTTP/1.1"
    root: Path
    rate: float
    line = Lock()

    def do_GET(self) -> None:
        data = (self.root / self.path.lstrip("/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for start in range(0, len(data), PIECE):
            with self.line:
                time.sleep(len(data[start : start + PIECE]) / self.rate)
            self.wfile.write(data[start : start + PIECE])

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *arguments: object) -> None:
        """Says nothing: a client that is done goes."""


def serve(root: Path, rate: float, port: Connection) -> None:
    """Serves until it is ended; sends its port."""
    Throttled.root, Throttled.rate = root, rate
    server = Quiet(("127.0.0.1", 0), Throttled)
    port.send(server.server_port)
    server.serve_forever()


def train(root: ShardedDataset, seconds: float) -> float:
    """A line; returns images a second."""
    loader = TwoViewLoader(root, ["train"], RECIPES["shapes32"], BATCH, seed=0)
    batches = chain.from_iterable(repeat(loader))
    began = time.perf_counter()
    next(batches)
    first, before, steps, stood = time.perf_counter(), waited(root), 0, 0.0
    while time.perf_counter() - first < seconds:
        time.sleep(STEP)
        asked = time.perf_counter()
        next(batches)
        stood += time.perf_counter() - asked
        steps += 1
    passed = time.perf_counter() - first
    print(f"first batch after {first - began:6.2f} s; of the {passed:.1f} s after it, {stood:6.2f} s waited for batches ", end="")
    print(f"and {waited(root) - before:6.2f} s for shards; {steps * BATCH / passed:6.1f} images/s")
    return steps * BATCH / passed


def waited(root: ShardedDataset) -> float:
    return root.waited if isinstance(root, RemoteDataset) else 0.0


def measure(root: Path, rate: float, seconds: float) -> None:
    """The same from a server of that many bytes a second."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(root, rate, there), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory(dir=".") as cache:
        room = working_set_bytes(ShardedDataset(root).manifest.splits["train"].shards, BATCH)
        remote = open_dataset(f"http://127.0.0.1:{here.recv()}", Path(cache), room / 1e9)
        train(remote, seconds)
        remote.close()
    server.terminate()
    server.join()


def make(root: Path) -> int:
    """The set; returns the bytes of an image, with all that a shard has beside it."""
    plan.MIN_TRAINING_SHARDS = SHARDS  # small shards for a small set, as many as windows of the order want
    built = build(
        source(0, {"train": SAMPLES, "val": 64}), root, seed=0, workers=2, max_rejected=0, overwrite=False, show=lambda _: None
    )
    return sum(shard.bytes for shard in built.manifest.splits["train"].shards) // SAMPLES


def main(
    seconds: Annotated[float, typer.Option(help="Of each rate, after the first batch.")] = 60,
    rates: Annotated[str, typer.Option(help="Times what training reads.")] = "4,2,1.2,0.5",
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    print(describe())
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        root = Path(scratch) / "set"
        size = make(root)
        print(f"{SAMPLES:,} images of {size / 1e3:.1f} kB in {SHARDS} shards, batches of {BATCH}, a step of {STEP} s")
        print("           directory: ", end="", flush=True)
        images = train(ShardedDataset(root), seconds)
        for rate in map(float, rates.split(",")):
            print(f"{rate:4.1f} times, {rate * images * size / 1e6:5.2f} MB/s: ", end="", flush=True)
            measure(root, rate * images * size, seconds)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.remote")
