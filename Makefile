# Every target sets up what it needs: a virtual environment in .venv with the tested versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LMMS := .venv-lmms
RIVALS := .venv-bench
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SPREAD ?= -n 2 --dist loadfile --no-loadscope-reorder
export HF_HUB_OFFLINE ?= 1

.PHONY: help demo docs test test-slow faults check lint types wheel-demo lmms-eval mutants bench bench-loaders format clean

help:           ## Show the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  \1\t/' | expand -t 17

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[demo,dev]'
	touch $@

demo: $(READY)        ## Encode four real clips with the demo model, print the table, verify the store
	rm -rf demo-out
	$(BIN)/dyntok demo --out demo-out
	$(BIN)/dyntok verify demo-out

test: $(READY)        ## Run the tests, in two processes
	$(BIN)/python -m pytest -q $(SPREAD)

test-slow: $(READY)   ## Run the slow tests too
	$(BIN)/python -m pytest -q -m 'not gpu and not campaign' $(SPREAD)

faults: $(READY)      ## Run the whole fault campaign, hours: every point at which a run can die, 2,000 flipped bytes
	$(BIN)/python -m pytest -q -m campaign

check: $(READY) lint types test    ## Lint, types and tests

lint: $(READY)        ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)       ## Check types
	$(BIN)/mypy

format: $(READY)      ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel-demo: $(READY)  ## Build the wheel and run the demo from it in a foreign folder
	PYTHON=$(BIN)/python bash tests/wheel_demo.sh

$(LMMS)/.ready: tests/lmms_eval/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(LMMS)
	$(LMMS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	$(LMMS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

lmms-eval: $(READY) $(LMMS)/.ready    ## Run lmms-eval on stored clips, in an environment of its own (gigabytes)
	$(BIN)/python -m tests.lmms_eval.prepare build/lmms-eval
	$(LMMS)/bin/python -m pytest -q -o filterwarnings=default -o timeout=900 tests/lmms_eval

mutants: $(READY)     ## Break merging, the store's rules and the loader place by place, and tell what no test notices (only=merging)
	$(PIP) -e '.[mutants]'
	$(BIN)/python -m tests.mutants.run $(only)

bench: $(READY)       ## Run the benchmarks, and print one table of all ratios (only=host: one of them)
	$(BIN)/python tests/benchmarks/summary.py $(only)

$(RIVALS)/.ready: tests/benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	$(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

bench-loaders: $(RIVALS)/.ready    ## Compare loading speed with other formats, in an environment of its own (gigabytes)
	$(RIVALS)/bin/python tests/benchmarks/bench_loaders.py

docs: $(READY)        ## Build the documentation as a site, in build/site
	$(PIP) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --clean
	@echo "open build/site/index.html"

clean:          ## Remove what the targets made
	rm -rf $(VENV) $(LMMS) $(RIVALS) demo-out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
