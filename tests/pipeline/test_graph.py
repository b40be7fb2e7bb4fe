"""The graph for a GPU, as far as it can be proved without one: traced, and every operator checked against DALI's registry."""

import pytest
from nvidia.dali import backend
from nvidia.dali.pipeline import Pipeline

from pipeline import graph
from pipeline.recipes import RECIPES

REGISTERED = {
    "cpu": set(backend.RegisteredCPUOps()),
    "gpu": set(backend.RegisteredGPUOps()),
    "mixed": set(backend.RegisteredMixedOps()),
}


def operators(monkeypatch, recipe, device):
    """(name, device) of each operator of the graph that the loader would build; building it would need the device."""
    monkeypatch.setattr(Pipeline, "build", Pipeline.serialize)
    pipe = graph.build(lambda: [], recipe, views=2, batch=4, device=device, device_id=None, threads=1)
    nodes = [node._op for node in pipe._ops if type(node._op).__name__ != "ExternalSource"]  # that one is always on the CPU
    return [(getattr(node, "_internal_schema_name", None) or node.schema_name, str(node.device)) for node in nodes]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_operator_exists_on_its_device(monkeypatch, name, device):
    for operator, where in operators(monkeypatch, RECIPES[name], device):
        assert operator in REGISTERED[where], f"{operator} is not registered for {where}"


@pytest.mark.parametrize("name", RECIPES)
def test_pixels_stay_on_the_gpu(monkeypatch, name):
    """One decoder for two views; after it, only what was drawn is still handled on the CPU."""
    found = operators(monkeypatch, RECIPES[name], "gpu")
    assert [operator for operator, where in found if where == "mixed"] == ["decoders__Image"]
    assert {operator for operator, where in found if where == "cpu"} <= {"_ArithmeticGenericOp", "Cast", "_TensorSubscript"}
    assert found.count(("Resize", "gpu")) == 4  # across and down, two views


@pytest.mark.parametrize("name", RECIPES)
def test_views_leave_the_gpu_graph_in_half_precision(monkeypatch, name):
    """One cast a view more than on the CPU."""
    casts = [
        [operator for operator, _ in operators(monkeypatch, RECIPES[name], device)].count("Cast") for device in ("gpu", "cpu")
    ]
    assert casts[0] == casts[1] + 2
