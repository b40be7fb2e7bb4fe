"""The graph for a GPU, as far as it can be proved without one: traced, and every operator checked against DALI's registry."""

import pytest
from nvidia.dali import backend
from nvidia.dali.pipeline import Pipeline

from pipeline import graph
from pipeline.recipes import RECIPES

REGISTERED = {"cpu": set(backend.RegisteredCPUOps()), "gpu": set(backend.RegisteredGPUOps())}
REGISTERED["mixed"] = set(backend.RegisteredMixedOps())


def traced(monkeypatch, recipe, device, views=2):
    """The pipeline that the loader would build, without building it, which needs the device."""
    monkeypatch.setattr(Pipeline, "build", Pipeline.serialize)
    return graph.build(lambda: [], recipe, views, batch=4, device=device, device_id=None, threads=1)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_operator_exists_on_its_device(monkeypatch, name, device):
    pipe = traced(monkeypatch, RECIPES[name], device)
    found = {}
    for operator in pipe._ops:
        kind = operator._op._internal_schema_name or operator._op.schema_name
        place = str(operator._op.device) if operator._op.device else "cpu"
        found.setdefault(kind, set()).add(place)
        if kind != "ExternalSource":
            assert kind in REGISTERED[place], f"{kind} is not registered for {place}"
    assert found["Resize"] == {device}
    assert any("mixed" in places for places in found.values()) == (device == "gpu")


@pytest.mark.parametrize("name", RECIPES)
def test_gpu_views_are_half_precision_hwc(monkeypatch, name):
    pipe = traced(monkeypatch, RECIPES[name], "gpu")
    outputs = [edge.name for edge in pipe._graph_outputs] if hasattr(pipe, "_graph_outputs") else None
    casts = [o for o in pipe._ops if o._op.schema_name == "Cast" and str(o._op.device) == "gpu"]
    assert len(casts) == 2
    assert outputs is None or len(outputs) == 2
