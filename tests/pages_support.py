"""What the pages of the documentation show: commands, their output, and files to save."""

from __future__ import annotations

import re

from tests_support import REPOSITORY

README = REPOSITORY / "README.md"
TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
PAGES = [README, *sorted((REPOSITORY / "docs").rglob("*.md"))]

AZURE = "there is no Azure here"
DOCKER = "there may be no Docker here"

# What is typed on a page and not run here, and why.
NOT_RUN = {
    "make run": ".ci/run runs it; its output is compared with that of the tutorial",
    "make test": ".ci/run runs it",
    "make test-all": ".ci/run runs it",
    "make simulate SEED=7": "make test-all runs more seeds",
    "make setup": ".ci/run runs it, with all that needs it",
    "make up": "the fixture has what it calls running, and a test compares its output",
    ".venv/bin/prefect worker start --pool topn-pool": "it runs for ever; tests/e2e/test_worker.py has one",
    "docker build --tag topn-worker .": DOCKER,
    "docker run --env PREFECT_API_URL --env TOPN_BATCH_ENDPOINT --env TOPN_STORAGE_ENDPOINT \\": DOCKER,
    "docker run --env PREFECT_API_URL topn-worker sh -c \\": DOCKER,
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

# Pages of which nothing is run, and why.
PAGES_NOT_RUN = {"azure-from-nothing": "it is about Azure; its two commands of `topn` are on other pages, too"}


def blocks_of(page):
    """The blocks of a page that show a terminal."""
    return re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def typed_on(page):
    """Each command of a page, and the lines that the page shows of its output."""
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
    """Each file that a page tells to save, and its content."""
    return re.findall(r"^Save this as `(.*?)`.*?\n\n```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def first_line(command):
    return command.partition("\n")[0]


def is_run(command):
    return first_line(command) not in NOT_RUN


def shape(line):
    """A line without what differs from run to run: ids, numbers, folders and the width of columns."""
    line = re.sub(r"[0-9a-f]{16,}", "ID", line)
    line = re.sub(r"\S*/bin/", "bin/", line)
    line = re.sub(r"(/[\w.-]+)+/", "/…/", line)
    # A status stands alone, and is meant as it is.
    line = line if line.isdigit() else re.sub(r"\d[\d.,:]*\d|\d", "0", line)
    return " ".join(line.split())


def assert_shows(shown, output):
    """Compare the shapes of an output and of what a page shows of it, where "…" stands for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(f"{shape(line)}\n") for line in shown)
    shapes = "".join(f"{shape(line)}\n" for line in output.splitlines())
    assert re.fullmatch(pattern, shapes), f"the page shows\n{chr(10).join(shown)}\nbut there was\n{output}"


def shown_in_the_readme(command):
    pattern = rf"<!-- output of {command} -->\n```console\n(.*?)```\n<!-- end of output -->"
    return re.search(pattern, README.read_text(), re.DOTALL).group(1).splitlines()
