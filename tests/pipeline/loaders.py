"""Loaders that many tests make, and what they do with batches."""

from dataclasses import replace

import torch

from amdim.pipeline import TwoViewLoader, dali
from amdim.pipeline.augment.recipes import STL64
from bench.gpu_views import ended

RECIPE = replace(STL64, size=32, resize=36)
GRAPH = replace(RECIPE, color="fused")  # for DALI: exact colours make a graph that takes five times as long to build


def end_by_loops(monkeypatch):
    """From here on DALI's graph ends in levels, as on a GPU, where Triton's kernels go on; here loops for the CPU do."""
    monkeypatch.setattr(dali, "is_available", lambda _: True)
    monkeypatch.setattr(dali, "tables", lambda recipe, draws, _: (recipe, draws))
    monkeypatch.setattr(dali, "augment_on_gpu", lambda levels, drawn: ended(levels, *drawn))


def loader(root, **options):
    """``pixels`` may be "levels", for what ``end_by_loops`` ends."""
    options |= {"pixels": "dali"} if options.get("pixels") == "levels" else {}
    recipe = GRAPH if options.get("pixels") == "dali" else RECIPE
    return TwoViewLoader(root, ["train"], **({"recipe": recipe, "batch": 16, "seed": 5, "threads": 1} | options))


def take(source, count):
    """The next batches, across epochs."""
    batches = []
    while len(batches) < count:
        for views in source:
            batches.append(views)
            if len(batches) == count:
                break
    return batches


def endless(source):
    while True:
        yield from source


def joined(ranks, count):
    """The next batches, of all ranks together."""
    parts = [take(source, count) for source in ranks]
    return [[torch.cat([part[step][k] for part in parts]) for k in range(3)] for step in range(count)]


def copied(views):
    return [part.clone() for part in views]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def same(batches, expected):
    return len(batches) == len(expected) and all(equal(a, b) for a, b in zip(batches, expected, strict=True))
