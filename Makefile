# Everything is installed into .venv: Python packages with the hashes of constraints.txt, Azurite with its lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: setup run up test test-all test-layers simulate lint docs bench sbom clean

setup: $(READY)

AZURITE := localbatch/src/localbatch/azurite_package

$(READY): pyproject.toml localbatch/pyproject.toml constraints.txt localbatch/tests/contract/track1.txt $(AZURITE)/package-lock.json
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# The pins are complete. pip's resolver would fail on a package that is required both with and without an extra.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable ./localbatch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade --target $(VENV)/clients/track1 -r localbatch/tests/contract/track1.txt
	$(BIN)/localbatch install
	@# Create a template of Prefect's database. Without it, the first start in each new state folder takes 10 s longer.
	$(BIN)/python -m flows.servers.prefect_server
	@touch $@

run: setup
	@$(BIN)/topn run $(or $(INPUTS),data/*.txt) $(if $(N),--num-words $(N)) $(if $(OUTPUT),--output $(OUTPUT))

up: setup
	@$(BIN)/python -m flows.servers.up

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup
SIMULATION := PYTHONPATH=tests $(BIN)/python -m simulation

test: test-layers
	$(SIMULATION) --seconds 30 --processes 2

# All tests, with a fixed number of simulation seeds instead of those that fit into 30 seconds.
test-all: test-layers
	$(SIMULATION) --seeds 1000 --processes 2
	$(PYTEST) tests/e2e

test-layers: setup
	$(PYTEST) tests/unit tests/integration tests/simulation localbatch/tests

simulate: setup
	$(SIMULATION) $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) --processes 2)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	@# -E: build all pages, because Sphinx does not detect changes of the code that the reference is generated from.
	$(BIN)/sphinx-build -E -W --keep-going -n -q docs .topn/docs
	@echo "The site is .topn/docs/index.html"

bench: setup
	$(BIN)/python -m bench

sbom: setup
	@mkdir -p .topn
	@# Reproducible output has no serial number and timestamp, so equal installations have equal bills of materials.
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --of JSON -o .topn/sbom.json
	cd $(AZURITE) && PATH="$(CURDIR)/$(BIN):$$PATH" npm sbom --omit=dev --package-lock-only --sbom-format cyclonedx --loglevel=error >$(CURDIR)/.topn/sbom-azurite.json
	@echo "The bills of materials are .topn/sbom.json and, of Azurite, .topn/sbom-azurite.json"

clean:
	rm -rf $(VENV) .topn
