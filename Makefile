# Everything runs in a virtual environment of the checkout; nothing is installed on the system.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One file stands for a finished installation; a changed pyproject.toml makes it anew.
READY := $(VENV)/.ready
LANGCHAIN := .venv-langchain
DEMO := .demo

.PHONY: help demo test faults check format docs bench bench-search bench-transfer bench-records clean

help:  ## Say what can be made.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[openai,ollama,minilm]' --group dev
	touch $@

# From nothing each time: the vectors of a former version may be of a model that is no longer used.
demo: $(READY)  ## Record, rate, promote, search and add up, on SQLite; POSTGRES=1 for PostgreSQL.
ifdef POSTGRES
	$(BIN)/python tools/with_postgres.py $(BIN)/paracle meta demo examples
else
	rm -rf $(DEMO)
	PARACLE_META_SQLITE_DIR=$(DEMO) $(BIN)/paracle meta demo examples
endif

test: $(READY)  ## Run every test, those on real PostgreSQL too.
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(PYTEST_OPTIONS)

# What is measured under load has the machine for itself.
faults: $(READY)  ## Kill, cut, fill and flood both databases for an hour; write docs/reliability.md.
	rm -f docs/reliability.jsonl
	$(BIN)/python -m pytest tests/faults --ignore=tests/faults/test_load.py --long \
		--figures=docs/reliability.jsonl --timeout=7200 --numprocesses 2 --dist worksteal
	$(BIN)/python -m pytest tests/faults/test_load.py --long --figures=docs/reliability.jsonl \
		--timeout=7200
	$(BIN)/python tools/make_reliability.py

check: $(READY)  ## Look for what can be seen without running: types, style, formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Put the code into shape.
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

docs: $(READY)  ## Write the reference anew from the docstrings.
	$(BIN)/python tools/make_reference.py

bench-search: $(READY)  ## Measure search, beside other stores too (BENCH_OPTIONS=--quick: minutes, not an hour).
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python -m benchmarks.search $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.retrieval
	$(BIN)/python -m benchmarks.postgresql
	$(BIN)/python -m benchmarks.event_loop

bench-transfer: $(READY)  ## Measure exports and copies (BENCH_OPTIONS=--quick: a minute, not half an hour).
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python -m benchmarks.transfer $(BENCH_OPTIONS)

# langchain-postgres wants a pgvector that is too old for this project.
$(LANGCHAIN)/.ready: pyproject.toml
	$(PYTHON) -m venv $(LANGCHAIN)
	$(LANGCHAIN)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(LANGCHAIN)/bin/python -m pip install --quiet --disable-pip-version-check --group bench-langchain
	touch $@

bench-records: $(READY) $(LANGCHAIN)/.ready  ## Measure records, costs, memory and starts (BENCH_OPTIONS=--quick: a few minutes).
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python -m benchmarks.records $(BENCH_OPTIONS)

bench: bench-search bench-transfer bench-records  ## Measure everything; write docs/benchmarks.md.
	$(BIN)/python -m benchmarks.overview

clean:  ## Remove what make made.
	rm -rf $(VENV) $(LANGCHAIN) $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis
