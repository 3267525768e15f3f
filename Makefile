# The two commands that matter: `make demo` and `make test`. `make check` lints and types, `make docs` builds the site.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= $(CURDIR)/.demo
CORES ?= 2
SEED ?= 0
INPUTS ?= 2000
ONLY ?=
STAMP := $(VENV)/.installed

# One thread a process: seeds run side by side, and results do not depend on the number of cores.
export OMP_NUM_THREADS = 1
export MLFLOW_DISABLE_TELEMETRY = true

.PHONY: install demo reproduce test test-all fuzz check docs package clean
.DEFAULT_GOAL := install

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV). This takes some minutes; pip prints nothing meanwhile."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[baselines,environments,export,pipeline,remote]" --group dev
	touch $@

install: $(STAMP)

demo: $(STAMP)
	IQ_OFFLINE_HOME="$(DEMO)" $(BIN)/iq-offline run demo --cores $(CORES) --out "$(DEMO)"

# The small pipeline twice from nothing, compared bit for bit; then killed in the middle, and gone on with.
reproduce: $(STAMP)
	$(BIN)/python tools/reproduce.py --cores $(CORES)

# Every stage end to end: all tests but those marked `slow`.
# One process per core; the tests of one file stay together, because they share fixtures.
test: $(STAMP)
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile -m "not slow"

# All tests, with more random examples, and the branch coverage of iq_offline: what CI runs, within twenty minutes.
test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile --hypothesis-profile=all --cov --cov-report=term:skip-covered

# Damaged inputs at every door: SEED chooses which, INPUTS how many, ONLY repeats one that a finding names.
fuzz: $(STAMP)
	PYTHONPATH="$(CURDIR)/tests" $(BIN)/python -m fuzz --seed $(SEED) --inputs $(INPUTS) --cores $(CORES) --only "$(ONLY)"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation's site, with warnings as errors; its notebooks are executed.
docs: $(VENV)/.docs
	IQ_OFFLINE_HOME="$(DEMO)/docs" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

# Wheel and sdist, checked: their metadata, and that each runs where it is installed alone.
package: $(STAMP)
	rm -rf dist
	$(BIN)/python -m pip install --quiet "build>=1.2" "twine>=6"
	$(BIN)/python -m build
	$(BIN)/python tools/check_package.py

clean:
	rm -rf $(VENV) $(DEMO)
