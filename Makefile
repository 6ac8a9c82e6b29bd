# Two commands for a newcomer: `make demo` and `make test`. Everything else: `make help`.
# Recipes use relative paths only, so that a checkout may lie anywhere, also in a folder with a space in its name.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
RUN := .venv/bin/python

# `python` in dvc.yaml is the environment's; tools keep their state here and call nobody.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export GOMP_SPINCOUNT := 3000
export PYTHONUNBUFFERED := 1

.PHONY: help setup demo test lint format lock repro flow server worker mlflow clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: ## make .venv with the locked versions (nothing to do the second time)
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo 'error: Python 3.11 or newer is needed; install it, or name one: make setup PYTHON=/path/to/python3' >&2; exit 1; }
	@"$(PYTHON)" scripts/setup.py

demo: setup ## from nothing to a registered cross-modal matcher, then the table and where to look
	@$(RUN) -m dvc repro
	@$(RUN) -m flows.retrain
	@$(RUN) -m flows.overview

test: setup lint ## all tests, on two cores
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadgroup

lint: setup ## style, types and who may import whom
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy && .venv/bin/lint-imports

format: setup ## put the code into its form
	@$(RUN) -m ruff check --fix . ; $(RUN) -m ruff format .

lock: setup ## resolve pyproject.toml again into requirements.lock
	@# Resolved for torch's CPU build, whose requirements every machine has; which build it is, scripts/setup.py decides.
	@sed -i 's/^torch==[^+]*$$/&+cpu/' requirements.lock
	@.venv/bin/uv pip compile pyproject.toml --extra pipeline --extra engines --extra ray --extra colmap --extra dev --python-version 3.11 --quiet -o requirements.lock \
		$(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--index https://download.pytorch.org/whl/cpu) \
		--index-strategy unsafe-best-match --no-emit-find-links --no-emit-index-url --custom-compile-command 'make lock'
	@sed -i 's/+cpu$$//' requirements.lock

repro: setup ## run what changed, through DVC
	@$(RUN) -m dvc repro

flow: setup ## the same through Prefect, then compare, register and promote
	@$(RUN) -m flows.retrain

server: setup ## Prefect's server and pages, http://127.0.0.1:4200
	@$(RUN) -m flows prefect server start

worker: setup ## what runs the deployments of prefect.yaml; needs `make server` in another terminal
	@$(RUN) -m flows.worker

mlflow: setup ## MLflow's pages, http://127.0.0.1:5000
	@$(RUN) -m flows mlflow server --backend-store-uri sqlite:///mlflow.db --workers 1 --port 5000

clean: ## remove what can be made again: data, models, reports, caches, runs
	@rm -rf data models predictions reports .scratch .state mlruns mlflow.db* .dvc/tmp .dvc/cache \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
