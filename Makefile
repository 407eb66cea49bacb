# uv installs packages into .venv, with the hashes of constraints.txt: what a run needs, and developer tools with the first
# target that uses them. `localbatch install` installs Azurite, with its lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
READY := $(VENV)/ready
TOOLS := $(VENV)/tools
AZURITE := localbatch/src/localbatch/azurite_package

# Let Python keep the bytecode of what it imports; otherwise each process compiles 2,000 modules again.
unexport PYTHONDONTWRITEBYTECODE

# Import nothing from PYTHONPATH and the current folder, where users may have modules of the same names.
unexport PYTHONPATH
export PYTHONSAFEPATH := 1

.PHONY: setup tools compiled pins run up test test-all test-layers test-seeds simulate lint docs bench sbom clean

setup: $(READY)

tools: $(TOOLS)

INSTALL := $(UV) pip install --quiet --python $(BIN)/python
INSTALL_PINNED := $(INSTALL) --require-hashes --constraints constraints.txt

$(UV): installer.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r installer.txt
	@touch $@

$(READY): $(UV) pyproject.toml localbatch/pyproject.toml constraints.txt $(AZURITE)/package-lock.json
	$(INSTALL_PINNED) -r pyproject.toml -r localbatch/pyproject.toml
	$(INSTALL) --no-deps --build-constraints constraints.txt --editable . --editable ./localbatch
	@# While npm runs, create a template of Prefect's database. Without it, each new state folder takes 10 s longer to start.
	$(BIN)/localbatch install & $(BIN)/python -m flows.servers.prefect_server && wait $$!
	@touch $@

$(TOOLS): $(READY) localbatch/tests/contract/track1.txt
	$(INSTALL_PINNED) -r pyproject.toml --extra compiled --extra parquet --group dev
	$(INSTALL) --require-hashes --no-deps --target $(VENV)/clients/track1 -r localbatch/tests/contract/track1.txt
	@touch $@

# Install the C compiler, with which nodes count faster. The developer tools include it.
compiled: setup
	$(INSTALL_PINNED) -r pyproject.toml --extra compiled

# Resolve the dependencies again. Pins that still fit stay; `make pins UPGRADE=prefect` upgrades one package.
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 $(UPGRADE:%=--upgrade-package %)
pins: $(UV)
	$(COMPILE) --group installer --output-file installer.txt
	$(COMPILE) --extra compiled --extra parquet --group dev pyproject.toml localbatch/pyproject.toml --output-file constraints.txt

run: setup
	@$(BIN)/topn run $(or $(INPUTS),data/*.txt) $(if $(N),--num-words $(N)) $(if $(OUTPUT),--output $(OUTPUT))

up: setup
	@$(BIN)/python -m flows.servers.up

PYTEST := $(BIN)/python -m pytest --dist loadgroup
SIMULATION := PYTHONPATH=tests $(BIN)/python -m simulation

# Tests wait for processes for much of their time, so four workers and the simulation together keep two cores busy.
LAYERS_AND_SEEDS = $(MAKE) --no-print-directory --jobs 2 --output-sync=line test-layers test-seeds

test: tools
	@+$(LAYERS_AND_SEEDS) SEEDS=60

# All tests, with more seeds of the simulation, and three times as many random examples for each property.
test-all: export MAX_EXAMPLES := 100
test-all: tools
	@+$(LAYERS_AND_SEEDS) SEEDS=1000
	$(PYTEST) -n 3 tests/e2e localbatch/tests/e2e

test-layers: tools
	$(PYTEST) -n 4 --ignore localbatch/tests/e2e tests/unit tests/integration tests/simulation localbatch/tests

test-seeds: tools
	$(SIMULATION) --seeds $(SEEDS) --processes 1

simulate: tools
	$(SIMULATION) $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) --processes 2)

lint: tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: tools
	@mkdir -p -m 700 .topn
	@# -E: build all pages, because Sphinx does not detect changes of the code that the reference is generated from.
	$(BIN)/sphinx-build -E -W --keep-going -n -q docs .topn/docs
	@echo "The site is .topn/docs/index.html"

bench: tools
	$(BIN)/python -m bench

sbom: tools
	@mkdir -p -m 700 .topn
	@# Reproducible output has no serial number and timestamp, so equal installations have equal bills of materials.
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --of JSON -o .topn/sbom.json
	cd $(AZURITE) && PATH="$(CURDIR)/$(BIN):$$PATH" npm sbom --omit=dev --package-lock-only --sbom-format cyclonedx --loglevel=error >$(CURDIR)/.topn/sbom-azurite.json
	@echo "The bills of materials are .topn/sbom.json and, of Azurite, .topn/sbom-azurite.json"

clean:
	rm -rf $(VENV) .topn
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
