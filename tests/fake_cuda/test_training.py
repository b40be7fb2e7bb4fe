"""The training loop on CUDA, without a GPU: types, devices, and no wait for the GPU but at log steps.

``session.py`` runs ``train.fit`` itself on fake tensors. What it cannot see: values; kernels' own limits on shapes and types;
what Triton's kernels do, which are not launched; memory layouts; streams and events, and so the loader's part; moving
a module to the device, as modules are made there; and waits outside torch's operators, such as in a library that calls the driver
itself. `make gpu-check` is for those.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

from amdim.engine.precision import ASKED

HERE = Path(__file__).parent
LOG_EVERY = 3
FORMS = ("torch", "triton") if find_spec("triton") else ("torch",)  # of the objective; Triton's kernels are not launched
PRESETS = ("fashion-mnist", "imagenet-small", "imagenet-large", "mixtures")
OPTIMIZERS = ("adamw", "lamb", "lars")  # with clipping and averages
HEALTHY = [f"{preset},{amp},{form},none" for form in FORMS for preset in PRESETS for amp in ASKED]
HEALTHY += [f"{name},{amp},torch,none" for name in OPTIMIZERS for amp in ASKED]
COUNTED = [f"{preset},{amp},torch,counted" for preset in ("fashion-mnist", *OPTIMIZERS) for amp in ASKED]
# A fake step takes a second. Every kind of each thing is among these; the rest is for the long tests.
SHORT = {f"fashion-mnist,{amp},{form},none" for form in FORMS for amp in ASKED}
SHORT |= {"mixtures,bf16,torch,none", "imagenet-small,bf16,torch,none", "lars,fp16,torch,none", "lamb,fp16,torch,counted"}
FAULTS = {  # what is done to a trainer: what it raises, in which part of a step, after how many steps
    "host_buffer": ("FakeTensorDeviceMismatchError", "update", 0),
    "host_meter": ("FakeTensorDeviceMismatchError", "update", 1),
    "item": ("DataDependentOutputException", "update", 0),
    "branch": ("DataDependentOutputException", "update", 0),
    "mask": ("DynamicOutputShapeException", "update", 0),
    "copy_in_backward": ("HostCopy", "update", 0),
    "unpinned": ("HostCopy", "update", 0),
    "unfused": ("DataDependentOutputException", "update", 0),
    "counted_and_branch": ("DataDependentOutputException", "update", 2 * LOG_EVERY + 1),
}


def marked(cases):
    return [case if case in SHORT else pytest.param(case, marks=pytest.mark.long) for case in cases]


def faulty(fault):
    return f"fashion-mnist,fp16,torch,{fault}"


def obstacle():
    """Why there can be no fake device here, or None."""
    if torch.version.cuda:
        return "this torch is built with CUDA, which a fake device would collide with; `make gpu-check` runs the real one"
    pinned = next(line for line in (HERE.parents[1] / "requirements.txt").read_text().splitlines() if line.startswith("torch=="))
    if torch.__version__.partition("+")[0] != pinned.removeprefix("torch=="):
        return f"torch {torch.__version__} is not the pinned one, whose private interfaces the fake device leans on"
    return None if shutil.which("g++") else "there is no g++ to build the fake device with"


@pytest.fixture(scope="module")
def results(request, tmp_path_factory):
    """What became of each case that is asked for; all in one process, which imports torch once."""
    if reason := obstacle():
        pytest.skip(reason)
    shim = tmp_path_factory.mktemp("shim") / "shim.so"
    build = ["g++", "-std=c++20", "-shared", "-fPIC", *(f"-I{path}" for path in include_paths()), HERE / "shim.cpp", "-o", shim]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"the fake device does not build here: {built.stderr.splitlines()[0]}")
    asked = [item.callspec.params for item in request.session.items if item.path == Path(__file__)]
    cases = list(dict.fromkeys(each["case"] if "case" in each else faulty(each["fault"]) for each in asked))
    command = [sys.executable, HERE / "session.py", shim, str(LOG_EVERY), *cases]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return dict(zip(cases, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", marked(HEALTHY))
def test_nothing_waits_for_the_gpu_before_the_first_log_step(results, case):
    """There, reading the losses is the one thing that fake tensors cannot do."""
    found = results[case]
    assert (found["raised"], found["where"]) == ("DataDependentOutputException", ["log", "read"]), found
    assert found["steps"] == LOG_EVERY


@pytest.mark.parametrize("case", marked(COUNTED))
def test_waits_of_four_log_intervals(results, case):
    """Each log step reads the losses, the loss scale and the watch, the first the pairs too; then the last save begins."""
    steps = [LOG_EVERY * i for i in range(1, 5)]
    expected = [[step, name] for step in steps for name in ("read", "scale", "check", *(("pairs",) if step == steps[0] else ()))]
    found = results[case]
    assert found["waits"] == [*expected, [steps[-1], "check"]]
    assert found["steps"] == steps[-1]
    assert found["where"][0] == "save", found


@pytest.mark.parametrize("case", marked(HEALTHY))
def test_types_and_devices(results, case):
    found, dtype = results[case], ASKED[case.split(",")[1]]
    assert found["computes_in"] == str(dtype or torch.float32)
    assert found["gradients"] == found["optimizer"] == ["cuda:0 torch.float32"]
    assert found["without_gradient"] == 0
    assert found["scaled"] == (dtype is torch.float16)
    assert (found["launches"] > 0) == (",triton," in case)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen_where_they_are(results, fault):
    found, (raised, part, steps) = results[faulty(fault)], FAULTS[fault]
    assert (found["raised"], found["where"][:2], found["steps"]) == (raised, ["advance", part], steps), found
