# A fresh machine needs python3 (3.11 or later) with venv, and make; make test: valkey-cli or redis-cli; make bench: cc.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: run test soak lint types docs bench clean

run: $(INSTALLED)  ## valqd on 127.0.0.1:6390 with an embedded Valkey in ./valqd-data
	@exec $(BIN)/valqd $(ARGS)

test: $(INSTALLED) lint types  ## everything that must hold
	$(BIN)/pytest -n 3 --dist worksteal  # three for two cores: half of the time they wait

lint: $(INSTALLED)  ## style, and generated files that are stale
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.docs --check

types: $(INSTALLED)
	$(BIN)/mypy valqd tools

docs: $(INSTALLED)  ## generate docs/commands.md from the SPECs
	$(BIN)/python -m tools.docs --write

soak: $(INSTALLED)  ## the model of the queue against the real functions, for ten minutes
	VALQD_SOAK=1 $(BIN)/pytest tests/property

bench: $(INSTALLED)  ## the table of bench/results.md, under 3 minutes
	$(BIN)/python -m bench

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache bench/build
