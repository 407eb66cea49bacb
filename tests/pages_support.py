"""Parsers for the commands, outputs and files that the pages of the documentation show."""

from __future__ import annotations

import re

from tests_support import REPOSITORY

README = REPOSITORY / "README.md"
TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
PAGES = [README, *sorted((REPOSITORY / "docs").rglob("*.md"))]

INDEX = "it needs a package index"
AZURE = "tests have no Azure account"
DOCKER = "Docker may be missing"
REPLACES = "it replaces the deployments of `make up`; tests/unit/test_flow.py loads the file"

# Commands that tests skip, by the first line on the page, with the reason.
NOT_RUN = {
    "make run": ".ci/run runs it, and a test compares its output with the tutorial",
    "make test": ".ci/run runs it",
    "make test-all": ".ci/run runs it",
    "make simulate SEED=7": "make test-all runs more seeds",
    "make setup": ".ci/run runs it",
    ".venv/bin/topn run 'az://texts/**/*.txt' --output az://counts/nightly": "an integration test runs it",
    "export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt": INDEX,
    "make up": "the fixture `up` runs it, and a test compares its output",
    ".venv/bin/prefect worker start --pool topn-pool": "it does not end; tests/e2e/test_worker.py runs a worker",
    ".venv/bin/python -m pip install ipykernel": INDEX,
    ".venv/bin/python -m ipykernel install --user --name topn": "it needs the command before it",
    "docker build --tag topn-worker .": DOCKER,
    "docker run --env PREFECT_API_URL --env TOPN_BATCH_ENDPOINT --env TOPN_STORAGE_ENDPOINT \\": DOCKER,
    "docker run --env PREFECT_API_URL topn-worker sh -c \\": DOCKER,
    "docker run --read-only --tmpfs /tmp --env PREFECT_API_URL --env TOPN_BATCH_ENDPOINT \\": DOCKER,
    "docker build --tag topn-worker --build-arg PACKAGES=adlfs .": DOCKER,
    ".venv/bin/prefect --no-prompt deploy --all --prefect-file deployments/git.yaml": REPLACES,
    ".venv/bin/prefect --no-prompt deploy --all --prefect-file deployments/image.yaml": REPLACES,
    'docker build --tag "topn-worker:$(git rev-parse HEAD)" .': DOCKER,
    "az storage container create --account-name mystorage --auth-mode login --name outputs": AZURE,
    "az storage container create --account-name mystorage --auth-mode login --name topn-results": AZURE,
    "az storage container create --account-name mystorage --auth-mode login --name prefect": AZURE,
    "az login": AZURE,
    "az group create --name topn --location westeurope": AZURE,
    "az group delete --name topn": AZURE,
    "az provider register --namespace Microsoft.Batch --wait": AZURE,
    "az deployment group create --resource-group topn --name topn --template-file infra/main.bicep \\": AZURE,
    'echo "TOPN_BATCH_ENDPOINT=$(az deployment group show -g topn -n topn --query properties.outputs.batchEndpoint.value -o tsv)" > .env': AZURE,
    'echo "TOPN_STORAGE_ENDPOINT=$(az deployment group show -g topn -n topn --query properties.outputs.storageEndpoint.value -o tsv)" >> .env': AZURE,
    "az storage account create --resource-group topn --name mystorage --location westeurope --sku Standard_LRS": AZURE,
    "az batch account create --resource-group topn --name mybatch --location westeurope": AZURE,
    'az role assignment create --role "Storage Blob Data Contributor" --assignee PRINCIPAL --scope STORAGE_ACCOUNT_ID': (
        AZURE
    ),
    'az role assignment create --role "Azure Batch Data Contributor" --assignee PRINCIPAL --scope BATCH_ACCOUNT_ID': (
        AZURE
    ),
}

# Pages whose commands are all skipped, with the reason.
PAGES_NOT_RUN = {
    "uninstall": "it deletes what the other pages need",
    "azure-from-nothing": "it needs Azure; other pages show its two `topn` commands, too",
    "blobs": "an integration test runs its commands together with its Python",
}


def blocks_of(page):
    """List the terminal blocks of a page."""
    return re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def typed_on(page):
    """List the commands of a page, each with the output lines that the page shows."""
    typed = []
    for line in "".join(blocks_of(page)).splitlines():
        if line.startswith("$ "):
            typed.append((line[2:], []))
        elif typed and typed[-1][0].endswith("\\"):
            command, shown = typed.pop()
            typed.append((f"{command}\n{line}", shown))
        elif typed:
            typed[-1][1].append(line)
    return typed


def saved_on(page):
    """List the name and content of each file that the page asks readers to save."""
    return re.findall(r"^Save this as `(.*?)`.*?\n\n```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def first_line(command):
    return command.partition("\n")[0]


def is_run(command):
    return first_line(command) not in NOT_RUN


def shape(line):
    """Replace what differs between runs: ids, numbers, costs, folders and column widths."""
    line = re.sub(r"[0-9a-f]{16,}", "ID", line)
    line = line.replace("charge less than", "charge about")
    line = re.sub(r"\S*/bin/", "bin/", line)
    line = re.sub(r"(/[\w.-]+)+/", "/…/", line)
    # A line with only a number is an exit status, which must match.
    line = line if line.isdigit() else re.sub(r"\d[\d.,:]*\d|\d", "0", line)
    return " ".join(line.split())


def assert_shows(shown, output):
    """Compare the shape of an output with the lines on the page, where "…" stands for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(f"{shape(line)}\n") for line in shown)
    shapes = "".join(f"{shape(line)}\n" for line in output.splitlines())
    assert re.fullmatch(pattern, shapes), f"the page shows\n{chr(10).join(shown)}\nbut the output is\n{output}"


def shown_in_the_readme(command):
    pattern = rf"<!-- output of {command} -->\n```console\n(.*?)```\n<!-- end of output -->"
    return re.search(pattern, README.read_text(), re.DOTALL).group(1).splitlines()
