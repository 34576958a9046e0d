# What one types to work with fedmq. `make` alone lists it.
#
# Everything goes into .venv, in this folder; a second run installs only what has changed.
#   ARGS=...     passed on to the program that a target runs
#   PYTHON=...   the Python that makes .venv (default: the first fitting one of python3, python3.13, ...)
#   JOBS=N       how many test processes run side by side
#   UPGRADE=1    with `make lock`: take the newest versions, not only what pyproject.toml asks for

PYTHON ?=
JOBS ?= 2
ARGS ?=
UPGRADE ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest -n $(JOBS)
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
BENCHMARKS := $(filter-out report courses %_peers,$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py)))

# Debian's mosquitto is in /usr/sbin, which a user's PATH may lack.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin
# TensorFlow is talkative when it starts; keep its errors.
export TF_CPP_MIN_LOG_LEVEL ?= 2
# A notice about the theme's future, on every build.
export NO_MKDOCS_2_WARNING ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow fuzz chaos lint docs lock bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

venv: $(VENV)/.dev ## Make .venv with everything for work on fedmq

demo: $(VENV)/.demo ## Run a simulated fleet on this machine, broker included (ARGS="--help" lists the options)
	$(BIN)/fedmq simulate $(ARGS)

test: $(VENV)/.dev ## Run the quick tests, with a mosquitto broker (installed where it is missing)
	@tools/ensure_mosquitto.sh > /dev/null
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(VENV)/.dev ## Run the slow tests
	@tools/ensure_mosquitto.sh > /dev/null
	$(PYTEST) -m slow $(ARGS)

fuzz: $(VENV)/.dev ## Feed damaged messages to every decoder (ARGS="--count 1000000"; with atheris: ARGS="--minutes 10")
	$(BIN)/python -m tests.fuzz.decoders $(ARGS)

chaos: $(VENV)/.dev ## Break things on purpose: every promise under faults, within an hour (ARGS=--quick)
	@tools/ensure_mosquitto.sh > /dev/null
	$(BIN)/python -m tests.chaos $(ARGS)

lint: $(VENV)/.dev ## Check style, types, layers and YAML
	@status=0; for check in "ruff check" "ruff format --check" mypy "lint-imports --no-logo" "yamllint --strict ."; do \
		echo "== $$check"; $(BIN)/$$check || status=1; done; exit $$status

docs: $(VENV)/.dev ## Build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet $(ARGS)

lock: $(BIN)/uv ## Write requirements/*.txt anew from pyproject.toml (UPGRADE=1: newest versions)
	$(LOCK) pyproject.toml --extra demo --group dev -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra demo --group build -c requirements/dev.txt -o requirements/demo.txt

bench: $(VENV)/.dev ## Run the benchmarks (BENCHMARKS="footprint" picks, ARGS="--quick" shortens)
	@set -e; for name in $(BENCHMARKS); do \
		echo "== python -m benchmarks.$$name $(ARGS)"; $(BIN)/python -m benchmarks.$$name $(ARGS); done

clean: ## Remove what builds, tests and tools have left; .venv stays
	rm -rf build dist site htmlcov coverage.json .coverage .coverage.* \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Stamps: one file in .venv for each set of packages that is complete.

$(BIN)/python:
	@tools/make_venv.sh $(VENV) $(PYTHON)

$(BIN)/uv: | $(BIN)/python
	$(PIP) install uv

$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(BIN)/python
	@tools/make_venv.sh $(VENV)
	@echo "Installing TensorFlow and what else the simulation needs into $(VENV): once, a few minutes, about 2 GB ..."
	$(PIP) install -r requirements/demo.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	@tools/make_venv.sh $(VENV)
	@echo "Installing TensorFlow and the development tools into $(VENV): once, a few minutes, about 2 GB ..."
	$(PIP) install -r requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
