# Everything is installed into .venv: Python packages by the hashes of constraints.txt, Azurite by its lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: setup run up test test-all test-layers simulate lint docs bench sbom clean

setup: $(READY)

AZURITE := localbatch/src/localbatch/azurite_package

$(READY): pyproject.toml localbatch/pyproject.toml constraints.txt localbatch/tests/contract/track1.txt $(AZURITE)/package-lock.json
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# The pins are complete; pip's own resolving of them fails where one package is asked for with an extra and without.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable ./localbatch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade --target $(VENV)/clients/track1 -r localbatch/tests/contract/track1.txt
	$(BIN)/localbatch install
	@# A template of Prefect's database, without which each new state folder takes 10 s longer to start.
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

# Everything: instead of the seeds that fit into 30 seconds, a fixed number of them.
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
	@# -E: the reference is made from code, of whose changes Sphinx does not know.
	$(BIN)/sphinx-build -E -W --keep-going -n -q docs .topn/docs
	@echo "The site is .topn/docs/index.html"

bench: setup
	$(BIN)/python -m bench

sbom: setup
	@mkdir -p .topn
	@# Without serial number and time, equal installations give equal bills.
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --of JSON -o .topn/sbom.json
	cd $(AZURITE) && PATH="$(CURDIR)/$(BIN):$$PATH" npm sbom --omit=dev --package-lock-only --sbom-format cyclonedx --loglevel=error >$(CURDIR)/.topn/sbom-azurite.json
	@echo "The bills of materials are .topn/sbom.json and, of Azurite, .topn/sbom-azurite.json"

clean:
	rm -rf $(VENV) .topn
