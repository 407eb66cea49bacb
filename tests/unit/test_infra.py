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


@pytest.mark.parametrize(("waiting", "nodes"), [(0, 0), (1, 1), (2, 1), (3, 2), (1000, 4)])
def test_pool_size_follows_pending_work(template, waiting, nodes):
    formula = template["variables"]["formula"]["value"]
    for parameter in ("slotsPerNode", "maxNodes"):
        default = template["parameters"][parameter]["default"]
        formula = formula.replace(f"${{{parameter}}}", str(default))
    assert "{" not in formula
    check(formula)
    now = datetime(2026, 11, 22, tzinfo=timezone.utc)
    samples = [Sample(now - timedelta(seconds=30 * age), waiting) for age in range(20, -1, -1)]
    found = evaluate(formula, now, {"PendingTasks": samples})
    assert (found.target_dedicated_nodes, found.node_deallocation_option) == (nodes, "taskcompletion")


def test_page_uses_outputs_and_parameters_of_template(template):
    page = PAGE.read_text()
    for output in re.findall(r"properties\.outputs\.(\w+)\.value", page):
        assert output in template["outputs"]
    for parameter in re.findall(r"(\w+)=(?:NAME|true|\"\$\()", page):
        assert parameter in template["parameters"] or parameter.startswith("TOPN_")
    required = {name for name, parameter in template["parameters"].items() if parameter.get("default") is None}
    assert required == {"name"}
