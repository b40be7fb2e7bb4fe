# AMDIM: `make` prints what there is. Most targets set the environment up first, which costs nothing when it is up to date.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

DATA ?= shapes
SRC ?=
# The index of tars that exist already lies beside them.
OUT ?= $(if $(and $(filter webdataset,$(DATA)),$(if $(findstring --rewrite,$(ARGS)),,yes)),$(SRC),data/$(DATA))
SIZE ?=
RECIPE ?=
WORKERS ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo shards train eval preview test test-all lint bench gpu-check apex clean

help:  ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(READY)  ## Create .venv and install the pinned packages

$(READY): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or later is needed; name one with PYTHON=python3.11")'
	@[ "$$(uname -s)" = Linux ] || { echo "make: DALI runs on Linux only; on Windows use WSL2"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: $(READY)  ## Learn from generated images in minutes: shapes, training, probes, report
	$(PY) -m shards build shapes --out data/shapes
	$(PY) -m shards preview data/shapes
	$(PY) train.py --data shapes --preset demo --gpus 0 --run demo
	$(PY) eval.py --probe linear,knn --run demo --gpus 0
	$(PY) -m pipeline.preview data/shapes --out runs/demo/pairs.png
	$(PY) eval.py --curve --run demo
	$(PY) eval.py --report --run demo --gpus 0
	@echo "Open runs/demo/report.html in a browser: how it learnt, probes, neighbours, score maps, a map of the images"

shards: $(READY)  ## Make shards: DATA=name [SRC=images] [OUT=data/name] [SIZE=256] [WORKERS=n] [ARGS=…]
	$(PY) -m shards build $(DATA) $(if $(SRC),--src "$(SRC)") --out "$(OUT)" $(if $(SIZE),--size $(SIZE)) $(if $(WORKERS),--workers $(WORKERS)) $(ARGS)
	$(PY) -m shards info "$(OUT)"
	$(PY) -m shards preview "$(OUT)"

train: $(READY)  ## Train: DATA=name [ARGS="--gpus 1 --epochs 50"]
	$(PY) train.py --data "$(DATA)" $(ARGS)

eval: $(READY)  ## Probe the latest run: [ARGS="--probe linear,knn"]
	$(PY) eval.py $(or $(ARGS),--probe linear)

preview: $(READY)  ## Show what AMDIM sees of a data set: DATA=name [RECIPE=name|file.toml]
	$(PY) -m pipeline.preview "$(if $(findstring /,$(DATA)),,data/)$(DATA)" $(if $(RECIPE),--recipe "$(RECIPE)")

test: $(READY)  ## Lint, types, import directions and tests: at most 12 minutes on two cores
	@$(MAKE) --no-print-directory lint
	$(PY) -m pytest -n 2 --dist loadscope

test-all: $(READY)  ## The same and the long tests: at most 60 minutes
	@$(MAKE) --no-print-directory lint
	$(PY) -m pytest -n 2 --dist loadscope
	$(PY) -m pytest -n 2 --dist loadscope -m "long and not alone"
	$(PY) -m pytest -m alone

lint: $(READY)  ## Style, types and import directions
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(READY)  ## Time what this machine does
	$(PY) -m shards build shapes --out data/shapes
	$(PY) -m bench.loader
	$(PY) -m bench.step
	$(PY) -m bench.convolutions
	$(PY) -m bench.nce

gpu-check:  ## Run what needs a GPU, with .venv or PYTHON=…: no set-up, no network; says what it skipped and why
	$(if $(filter file,$(origin PYTHON)),$(or $(wildcard $(PY)),$(PYTHON)),$(PYTHON)) -m bench.gpu_check

apex: $(READY)  ## Build NVIDIA's apex against the installed torch (needs a CUDA toolkit)
	@command -v nvcc >/dev/null && $(PY) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
	  || { echo "make apex: no CUDA here (a GPU, its driver and nvcc are needed); everything works without apex"; exit 1; }
	APEX_CPP_EXT=1 APEX_CUDA_EXT=1 $(PY) -m pip install --no-build-isolation "git+https://github.com/NVIDIA/apex@$(APEX_COMMIT)"

APEX_COMMIT := 6424da3

clean:  ## Remove the environment and caches, never data or runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
