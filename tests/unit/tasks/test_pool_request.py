"""The properties of a pool with a subnet or an own image, which Batch accepts with an identity only."""

from __future__ import annotations

import pytest

from tasks.azure.pool_request import pool_properties
from tasks.azure.values import PoolSpec, StartTask
from tasks.model.pool import PoolOptions, PoolSetup
from tasks.steps.pool_selection import choose_image

GROUP = "/subscriptions/s/resourceGroups/g/providers"
SUBNET = f"{GROUP}/Microsoft.Network/virtualNetworks/v/subnets/nodes"
IMAGE = f"{GROUP}/Microsoft.Compute/galleries/g/images/ours/versions/1.2.3"
OWN_IMAGE = {"image_id": IMAGE, "node_agent_sku": "batch.node.el 9"}


@pytest.fixture
def sent():
    """Return a function that returns the properties of a pool with an own image and other options."""

    def properties(**setup):
        options = PoolOptions(setup=PoolSetup(**OWN_IMAGE, **setup))
        spec = PoolSpec(
            pool_id="p",
            options=options,
            image=choose_image(None, options, None),
            autoscale_formula="$TargetDedicatedNodes = 1;",
            start_task=StartTask(command_line="true", files=()),
            metadata={},
        )
        return pool_properties(spec)

    return properties


def test_pool_joins_own_network_without_public_addresses(sent):
    assert "networkConfiguration" not in sent()
    assert sent(subnet_id=SUBNET, public_addresses=False)["networkConfiguration"] == {
        "subnetId": SUBNET,
        "publicIPAddressConfiguration": {"provision": "nopublicipaddresses"},
    }


def test_pool_uses_own_image(sent):
    machine = sent()["virtualMachineConfiguration"]
    assert machine["imageReference"] == {"virtualMachineImageId": IMAGE}
    assert machine["nodeAgentSKUId"] == "batch.node.el 9"
