"""The Bicep template for Azure. No test deploys it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from pycep import BicepParser
from tests_support import REPOSITORY

from localbatch.account.records import Sample
from localbatch.rules.autoscale import check, evaluate

TEMPLATE = REPOSITORY / "infra" / "main.bicep"
PAGE = REPOSITORY / "docs" / "azure-from-nothing.md"

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)

# Source: Azure built-in roles, "Storage" and "Compute".
ROLES = {
    "storageBlobDataContributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "azureBatchDataContributor": "6aaa78f1-f7de-44ca-8722-c64a23943cae",
}


@pytest.fixture(scope="module")
def template():
    return BicepParser().parse(file_path=TEMPLATE)


@pytest.fixture(scope="module")
def properties(template):
    """The properties of each resource, by name in the template."""
    found = {}
    for name, resource in template["resources"].items():
        config = resource["config"]
        found[name] = config.get("config", config)["properties"] if "properties" in str(config) else {}
    return found


def test_accounts_reject_keys_and_anonymous_access(properties):
    assert properties["batch"]["allowedAuthenticationModes"] == ["AAD"]
    assert properties["storage"]["allowSharedKeyAccess"] is False
    assert properties["storage"]["allowBlobPublicAccess"] is False
    assert properties["storage"]["supportsHttpsTrafficOnly"] is True
    assert properties["storage"]["minimumTlsVersion"] == "TLS1_2"


def test_role_assignments_are_minimal_per_account():
    """The test reads the text because the parser does not resolve calls."""
    blocks = re.findall(r"^resource (\w+) '([\w./]+)@.*?\n(.*?)^}", TEMPLATE.read_text(), re.MULTILINE | re.DOTALL)
    assigned = {
        (name, re.search(r"scope: (\w+)", body).group(1), re.search(r"roleDefinitions', (\w+)\)", body).group(1))
        for name, kind, body in blocks
        if kind == "Microsoft.Authorization/roleAssignments"
    }
    assert assigned == {
        ("workerOnStorage", "storage", "storageBlobDataContributor"),
        ("workerOnBatch", "batch", "azureBatchDataContributor"),
        ("principalOnStorage", "storage", "storageBlobDataContributor"),
        ("principalOnBatch", "batch", "azureBatchDataContributor"),
        ("nodesOnStorage", "storage", "storageBlobDataContributor"),
    }
    for name, _, role in assigned:
        [body] = [body for found, _, body in blocks if found == name]
        principal = name.partition("On")[0]
        assert f"principalId: {principal}{'Id' if principal == 'principal' else '.properties.principalId'}\n" in body
        # The name is derived from the assignment, so a second deployment creates nothing.
        assert re.search(rf"name: guid\((storage|batch)\.id, {principal}(Id|\.id), {role}\)", body)


def test_role_ids_match_their_names(template):
    assert {name: template["variables"][name]["value"] for name in ROLES} == ROLES
    assert "roleDefinitions', '" not in TEMPLATE.read_text()


def formula_of(template):
    """The formula of the pool, with the defaults of the parameters."""
    formula = template["variables"]["formula"]["value"]
    for parameter in ("slotsPerNode", "maxNodes"):
        formula = formula.replace(f"${{{parameter}}}", str(template["parameters"][parameter]["default"]))
    assert "{" not in formula
    check(formula)
    return formula


def evaluate_pool(template, samples):
    """Evaluate the formula with samples of pending Batch tasks, each with its age in seconds."""
    pending = [Sample(NOW - timedelta(seconds=age), waiting) for age, waiting in sorted(samples, reverse=True)]
    return evaluate(formula_of(template), NOW, {"PendingTasks": pending})


def every_30_seconds(waiting, *, first, last):
    """Samples with an age of `first` to `last` seconds."""
    return [(age, waiting) for age in range(last, first + 1, 30)]


@pytest.mark.parametrize(("waiting", "nodes"), [(0, 0), (1, 1), (2, 1), (3, 2), (1000, 4)])
def test_pool_size_follows_pending_work(template, waiting, nodes):
    found = evaluate_pool(template, every_30_seconds(waiting, first=600, last=0))
    assert (found.target_dedicated_nodes, found.node_deallocation_option) == (nodes, "taskcompletion")


@pytest.mark.parametrize(
    ("samples", "nodes"),
    [
        pytest.param([], 0, id="none, as in a new pool"),
        pytest.param([(90, 3)], 2, id="a single one"),
        pytest.param(every_30_seconds(3, first=90, last=60), 2, id="the first two"),
        pytest.param(every_30_seconds(3, first=600, last=60), 2, id="without the last minute"),
        pytest.param(every_30_seconds(3, first=1200, last=600), 2, id="late by ten minutes"),
        pytest.param(every_30_seconds(0, first=1200, last=600), 0, id="late, and no work"),
        pytest.param(every_30_seconds(3, first=7800, last=7200), 0, id="late by two hours"),
        pytest.param([*every_30_seconds(0, first=210, last=60), (240, 3)], 2, id="work that ended recently"),
        pytest.param([*every_30_seconds(0, first=330, last=60), (360, 3)], 0, id="work that ended earlier"),
    ],
)
def test_pool_size_with_few_samples(template, samples, nodes):
    """A missing sample must not fail the evaluation: the pool would keep its size."""
    assert evaluate_pool(template, samples).target_dedicated_nodes == nodes


def test_pool_size_does_not_need_other_metrics(template):
    assert set(re.findall(r"\$(\w+)\.", formula_of(template))) == {"PendingTasks"}


def test_versions_of_resources_are_current():
    """Batch retires versions before 2025-06-01; https://github.com/Azure/Batch/issues/140."""
    versions = dict(re.findall(r"'(Microsoft\.[\w./]+)@([\w-]+)'", TEMPLATE.read_text()))
    assert versions == {
        "Microsoft.Authorization/roleAssignments": "2022-04-01",
        "Microsoft.Batch/batchAccounts": "2025-06-01",
        "Microsoft.Batch/batchAccounts/pools": "2025-06-01",
        "Microsoft.ManagedIdentity/userAssignedIdentities": "2024-11-30",
        "Microsoft.Storage/storageAccounts": "2025-06-01",
    }


def test_pool_has_no_retired_properties(properties):
    assert properties["pool"]["vmSize"]
    assert "targetNodeCommunicationMode" not in properties["pool"]


def test_page_uses_outputs_and_parameters_of_template(template):
    page = PAGE.read_text()
    for output in re.findall(r"properties\.outputs\.(\w+)\.value", page):
        assert output in template["outputs"]
    for parameter in re.findall(r"(\w+)=(?:NAME|true|\"\$\()", page):
        assert parameter in template["parameters"] or parameter.startswith("TOPN_")
    required = {name for name, parameter in template["parameters"].items() if parameter.get("default") is None}
    assert required == {"name"}
