# One screen of verbs: `make` alone prints them.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check

# Its tests, one for each operation, share one name, of which two processes would run but one.
ALIKE := tests/scenarios/test_schemathesis.py

.PHONY: help run demo test search check format bench bench-growth bench-growth-long bench-soak contract clean

help: ## print these verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

run: .venv/runtime ## set everything up and serve on 127.0.0.1:8000
	@exec $(BIN)/tallystick serve

demo: .venv/runtime ## the same, with an organization that has three months behind it
	@exec $(BIN)/tallystick demo

test: check ## everything CI runs: make check, then every test
	@$(BIN)/pytest -n 2 --dist loadfile --ignore $(ALIKE)
	@$(BIN)/pytest $(ALIKE)

search: .venv/development ## look for counterexamples that no build has met yet
	@$(BIN)/pytest tests/core --hypothesis-profile search

check: .venv/development ## format, lint, strict types, import direction, contract
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@PYTHONPATH=src $(BIN)/lint-imports
	@$(BIN)/python -m tallystick.api.openapi --check contract/openapi.json

format: .venv/development ## rewrite the sources as `make check` wants them
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

contract: .venv/development ## write contract/openapi.json anew from the code
	@$(BIN)/python -m tallystick.api.openapi --write contract/openapi.json

bench: .venv/development ## every measurement beside this machine's ceilings, into docs/benchmarks.md: some minutes
	@$(BIN)/python -m bench.everything --write docs/benchmarks.md

bench-growth: .venv/development ## the same loads on an empty database and on one with 20 million keys, with memory for a tenth of them
	@$(BIN)/python -m bench.growth --shared-buffers tenth

bench-growth-long: .venv/development ## the same with a hundred million keys: tens of gigabytes
	@$(BIN)/python -m bench.growth --shared-buffers tenth --keys 100000000

bench-soak: .venv/development ## half load for half an hour: does anything grow?
	@$(BIN)/python -m bench.soak --plot docs/soak.svg

clean: ## forget the virtual environment and caches (never the data)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Tallystick needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv .venv

.venv/runtime: .venv/bin/python requirements.lock pyproject.toml
	@echo "installing what the server needs (once) …"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/development: .venv/bin/python requirements-dev.lock pyproject.toml
	@echo "installing what the tests need (once) …"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ .venv/runtime
