# `make demo` and `make test` need only python3.11, make and a package index: they build .venv themselves.
# Where the index offers torch with CUDA only, say where a CPU build lies: make .venv PIP_ARGS="--find-links DIR".
PYTHON ?= python3.11
PIP_ARGS ?=
WORKERS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed
DOCS := .venv/.docs

.PHONY: demo test lint types tests notebooks docs clean

demo: $(STAMP)
	$(BIN)/videolens demo --out out/demo

test: lint types tests notebooks docs

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

# One thread per worker: the workers are the parallelism, and sums come out in one order.
tests: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

notebooks: $(STAMP)
	$(BIN)/python tests/run_notebooks.py notebooks

# The site, in out/site: a broken link, or a public name without a docstring, fails.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo out/site/index.html

.venv: $(STAMP)

# torch goes first and alone: with its exact version in place no other package's range can bring another build.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $@

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf out build dist .mypy_cache .pytest_cache .ruff_cache
