"""The graph for a GPU, as far as it can be proved without one: traced, and every operator checked against DALI's registry."""

from collections import Counter
from dataclasses import replace
from functools import cache
from unittest.mock import patch

import pytest
from nvidia.dali import backend
from nvidia.dali.pipeline import Pipeline

from amdim.pipeline.augment import dali_graph
from amdim.pipeline.augment.recipes import GRAY32, RECIPES, STL64

REGISTERED = {
    "cpu": set(backend.RegisteredCPUOps()),
    "gpu": set(backend.RegisteredGPUOps()),
    "mixed": set(backend.RegisteredMixedOps()),
}
# Every field that changes the graph, beside what the named recipes have.
OWN = {
    "fused": replace(STL64, color="fused"),
    "transposed": replace(GRAY32, transpose=0.5),
    "no colours": replace(GRAY32, jitter_p=0.0, lighting=0.1),
    "evaluation": RECIPES["strong128"].centred(),
}
ALL = RECIPES | OWN
# What a GPU's operator takes from the CPU: named arguments, all of them drawn, by operator and how many it has at most.
DRAWN = {
    "Slice": 2,  # where the box starts and ends
    "Resize": 2,  # the same for each pass
    "WarpAffine": 1,  # matrix
    "CoordTransform": 2,  # matrix and vector
    "Erase": 2,  # corner and extent
}


@cache
def traced(name, device, whole=True):
    """The graph that the loader would build; building it would need the device."""
    with patch.object(Pipeline, "build", Pipeline.serialize):
        return dali_graph.build(lambda: [], ALL[name], views=2, batch=4, device=device, device_id=None, threads=1, whole=whole)


def nodes(pipe):
    """Name, device and node of each operator but the source of bytes and draws, which is always on the CPU."""
    for node in pipe._ops:
        if type(node._op).__name__ != "ExternalSource":
            yield getattr(node._op, "_internal_schema_name", None) or node._op.schema_name, str(node._op.device), node


def operators(pipe):
    return [(name, where) for name, where, _ in nodes(pipe)]


def placed(node):
    """Devices of the tensors that a node works on, and of its named arguments."""
    spec = node.spec
    where = [spec.InputDesc(number)[1] for number in range(spec.NumInput())]
    return where[: spec.NumRegularInput()], where[spec.NumRegularInput() :]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("device", "whole"), [("cpu", True), ("gpu", True), ("gpu", False)])
def test_every_operator_exists_on_its_device(name, device, whole):
    for operator, where in operators(traced(name, device, whole)):
        assert operator in REGISTERED[where], f"{operator} is not registered for {where}"


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("whole", [True, False])
def test_pixels_stay_on_the_gpu(name, whole):
    """One decoder for two views; after it, only what was drawn is still handled on the CPU."""
    found = operators(traced(name, "gpu", whole))
    assert [operator for operator, where in found if where == "mixed"] == ["decoders__Image"]
    assert {operator for operator, where in found if where == "cpu"} <= {"Cast", "_TensorSubscript"}
    assert found.count(("Resize", "gpu")) == 4  # across and down, two views


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("whole", [True, False])
def test_only_bytes_and_draws_cross_over_from_the_cpu(name, whole):
    """The bytes through the decoder and draws as named arguments, which DALI takes from the CPU; no tensor is copied over."""
    for operator, where, node in nodes(traced(name, "gpu", whole)):
        tensors, arguments = placed(node)
        assert set(tensors) <= ({"gpu"} if where == "gpu" else {"cpu"}), operator
        assert set(arguments) <= {"cpu"}, operator
        assert where == "cpu" or len(arguments) <= DRAWN.get(operator, 0), operator


@pytest.mark.parametrize("name", ALL)
def test_views_leave_the_gpu_graph_in_half_precision(name):
    """One cast a view more than on the CPU, and the last thing done."""
    gpu, cpu = (traced(name, device) for device in ("gpu", "cpu"))
    assert (
        Counter(operators(gpu))["Cast", "gpu"] - Counter(operators(cpu))["Cast", "cpu"]
        == 2 - Counter(operators(gpu))["Cast", "cpu"]
    )
    for output in gpu._graph_out:
        assert output.device == "gpu"
        assert output.source._op.schema_name == "Cast"


@pytest.mark.parametrize("name", ALL)
def test_what_triton_ends_is_a_cut_and_two_passes_a_view(name):
    """And a turn where the recipe has one: of all that a policy and colours take, the graph has nothing."""
    found = Counter(operators(traced(name, "gpu", whole=False)))
    turns = 2 if ALL[name].transpose else 0
    assert {operator: count for (operator, where), count in found.items() if where == "gpu"} == (
        {"Slice": 2, "Resize": 4} | ({"WarpAffine": turns} if turns else {})
    )


def test_a_graph_is_as_large_as_the_docs_say():
    """Near a hundred operators a step of a policy, two steps a view; with them, the graph is about twice as large."""
    strong, plain = (len(operators(traced(name, "gpu"))) for name in ("strong128", "imagenet128"))
    assert 80 <= (strong - plain) / 4 <= 110
    assert 1.8 <= strong / plain <= 2.3
