# Set-up, the experiment, checks and servers; `make help` lists them. Needs Python 3.11 to 3.13, git and make.
# the first that starts: pyenv has commands also of versions that are not active
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do $$name -c '' 2>/dev/null && echo $$name && break; done)
GPU_PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
LOCK = $$($(BIN)/python -c 'import sys; print("requirements%s.lock" % ("-3.13" * (sys.version_info >= (3, 13))))')

# Telemetry off, for the tools started here and their children (see vlm_r1/environment.py).
export DO_NOT_TRACK ?= 1
export DVC_NO_ANALYTICS ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true
export GX_ANALYTICS_ENABLED ?= false
export HF_HUB_DISABLE_TELEMETRY ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export PREFECT_PORT ?= 4200
export MLFLOW_PORT ?= 5000
TORCH_CPU ?= https://download.pytorch.org/whl/cpu

.DEFAULT_GOAL := help
.PHONY: help install demo figure repro test peers vllm rehearsal bench gpu-check lint server retrain stop mlflow base deps lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## the environment in .venv, from requirements.lock (requirements-3.13.lock)
$(INSTALLED): requirements.lock requirements-3.13.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "need Python 3.11, 3.12 or 3.13: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement "$(LOCK)"
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

demo: install ## the whole experiment and its report; runs only what is stale
	@PREFECT_PROFILE=ephemeral $(BIN)/python -m flows.generalization

figure: install ## VLM-R1's withdrawn figure and the fair one, in .figure/ (docs/withdrawn-figure.md)
	@$(BIN)/python -m tasks.figure

repro: install ## the same without Prefect
	@$(BIN)/dvc repro

test: install ## every test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

peers: install .venv-peers/.installed ## tests against lmms-eval in an environment of its own (.venv-peers)
	@OMP_NUM_THREADS=1 VLM_R1_LMMS_EVAL_PYTHON=$(CURDIR)/.venv-peers/bin/python $(BIN)/python -m pytest -m peers -s
.venv-peers/.installed: tests/peers/lmms_eval.lock
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --requirement tests/peers/lmms_eval.lock
	@touch $@

vllm: install .venv-vllm/.installed ## tests of vLLM against transformers on a CPU; vLLM's own environment (.venv-vllm)
	@OMP_NUM_THREADS=1 VLM_R1_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest -m peers -s tests/test_peers_vllm.py
.venv-vllm/.installed: tests/peers/vllm.lock
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --no-deps --extra-index-url $(TORCH_CPU) --requirement tests/peers/vllm.lock
	@touch $@

rehearsal: install ## both methods on real photos, two processes (PHOTOS=folder; docs/training.md)
	@PYTHONPATH=src $(BIN)/python -m benchmarks.rehearsal "$(PHOTOS)"

bench: install ## every benchmark, and the table in docs/performance.md; 20 minutes on an idle machine
	@PYTHONPATH=src $(BIN)/python -m benchmarks

gpu-check: ## what only a GPU can show, with the machine's own Python and torch (GPU_PYTHON=...)
	@PYTHONPATH=src $(GPU_PYTHON) -m benchmarks.gpu

lint: install ## ruff (rules, format) and mypy (types; the first run takes two minutes)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

server: install ## Prefect server, MLflow server and a worker on loopback; makes the deployments
	@$(BIN)/python -m tasks.servers start

retrain: server ## run the deployment generalization/laptop and watch it
	@$(BIN)/prefect deployment run generalization/laptop --watch

stop: install ## end what `make server` started, nothing else
	@$(BIN)/python -m tasks.servers stop

mlflow: install ## MLflow's pages alone, until Ctrl-C
	@$(BIN)/python -m tasks.servers mlflow

base: install ## train the base model again (stage `base` is frozen: its weights are in git)
	@$(BIN)/vlm-r1 stage base
	@$(BIN)/dvc commit --force base

deps: install ## after a change of imports: rewrites code deps of dvc.yaml, docs/architecture.svg
	@$(BIN)/python -m tasks.dvc_deps
	@$(BIN)/python docs/architecture.py

lock: install ## rewrite this Python's lock from pyproject.toml (3.13 has its own); keeps the pins that still fit
	@CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --extra dev --strip-extras \
		--no-emit-options --annotation-style line --output-file "$(LOCK)" pyproject.toml

clean: ## remove what the pipeline made: data, models, results, reports, runs, caches; keeps .venv
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m tasks.servers stop; fi
	rm -rf data/drawn data/unpacked data/versions data/inputs data/prepared models/sft models/grpo models/*.part results reports
	rm -rf .figure .cache .dvc/cache .dvc/tmp .prefect .mlflow .run .pytest_cache .ruff_cache .mypy_cache .hypothesis
