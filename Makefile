.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help run test check bench lint format types demo screenshots browser lock clean

help: ## Show what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/run ## Run the portal: database, migrations, first administrator, server
	@exec $(BIN)/python app.py

test: .venv/dev browser ## Set up what the tests need and run all of them
	$(BIN)/pytest

check: lint types test ## Everything CI checks: lint, format, types, tests

bench: .venv/dev .venv/bench ## Measure what the portal costs, in minutes; BENCH=full takes its time, PARTS="polls" only those, URL=… a running server
	@$(BIN)/python -m bench $(PARTS) $(foreach each,$(URL),--url $(each)) $(foreach each,$(TOKENS),--tokens $(each))

lint: .venv/dev ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/dev ## Check types
	$(BIN)/mypy

demo: .venv/run ## Fill the portal with a believable organisation; SCALE=100 adds one with 100,000 runners
	@$(BIN)/flask --app app demo fill $(if $(SCALE),--scale $(SCALE))

screenshots: .venv/dev browser ## Make the README's screenshots anew, from a demo portal of their own
	$(BIN)/python -m tests.screenshots

browser: .venv/dev
	@$(BIN)/python -m tests.browser.setup

lock: .venv/dev ## Lock the dependencies anew after a change of pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml --group dev -o requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group bench -o requirements-bench.lock

clean: ## Remove what was installed and built; the data folder stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/.built

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run: requirements.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

.venv/dev: requirements-dev.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@ .venv/run

.venv/bench: requirements-bench.lock | .venv/bin/python
	@command -v go >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@
