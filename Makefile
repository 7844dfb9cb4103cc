# `make quickstart` and `make test` do all the set-up themselves; the second time nothing is installed again.

PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # the tests start some hundred processes: their modules are compiled once
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: quickstart test test-all lint sizes proofs clean

# The tests of a file run in one process, where they share what fixtures made; files come in the order of conftest.py.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quickstart: .venv/.installed
	$(BIN)/orchard train vit_nano --data digits

test: .venv/.installed-test
	$(PYTEST)

test-all: .venv/.installed-test
	$(PYTEST) -m ''

lint: .venv/.installed-test
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/mypy benchmarks
	$(BIN)/lint-imports

sizes: .venv/.installed-test
	$(BIN)/python -m orchard.weights.sizes

proofs: .venv/.installed-test
	$(BIN)/orchard verify --all --write docs/proofs

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Orchard needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing (torch is large: some minutes the first time) ..."
	$(PIP) --editable . --constraint constraints.txt
	@touch $@

.venv/.installed-test: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing with the test extras ..."
	$(PIP) --editable '.[test]' --constraint constraints.txt
	@touch .venv/.installed $@

clean:
	rm -rf .venv build dist src/*.egg-info
