"""The properties of the pool that a run creates, by their names in the Batch REST API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.azure.values import Image, PoolSpec, StartTask
from tasks.errors import ConfigurationError
from tasks.model.pool import PoolSetup

# What `extra` cannot set besides what stands in the properties, and what sets it.
ELSEWHERE = {"startTask": "start_commands", "targetDedicatedNodes": "nodes", "targetLowPriorityNodes": "spot_nodes"}

# A run's parameters are shown on Prefect's pages.
SECRETS = frozenset({"password", "accountKey", "sasKey", "sshPrivateKey", "protectedSettings"})


def pool_properties(spec: PoolSpec) -> dict[str, Any]:
    """Give all properties but the start task.

    Raises:
        ConfigurationError: Something in `extra` is set by another field.
    """
    for name in ELSEWHERE.keys() & spec.setup.extra.keys():
        raise ConfigurationError(f"extra of the pool has {name}: use {ELSEWHERE[name]} instead.")
    setup = spec.setup
    machine: dict[str, Any] = {
        "imageReference": _image_reference(spec.image),
        "nodeAgentSKUId": spec.image.node_agent_sku,
    }
    if setup.container_image is not None:
        machine["containerConfiguration"] = _containers(setup.container_image, setup)
    properties: dict[str, Any] = {
        "id": spec.pool_id,
        "displayName": spec.pool_id,
        "vmSize": spec.vm_size,
        "virtualMachineConfiguration": machine,
        "enableAutoScale": True,
        "autoScaleFormula": spec.autoscale_formula,
        # The shortest that the service takes.
        "autoScaleEvaluationInterval": "PT5M",
        "taskSlotsPerNode": spec.slots_per_node,
        "metadata": [{"name": name, "value": value} for name, value in ({**setup.metadata, **spec.metadata}).items()],
    }
    if network := _network(setup):
        properties["networkConfiguration"] = network
    return _merged(properties, setup.extra, "")


def check_extra(setup: PoolSetup) -> None:
    """See that `extra` has no secret, and nothing that another field sets, before there is a pool to create.

    Raises:
        ConfigurationError: It has.
    """
    for name in _names(setup.extra):
        if name in SECRETS:
            raise ConfigurationError(
                f"extra of the pool has {name}: no secret belongs in a run's parameters, which Prefect shows; "
                "use an identity reference."
            )
    image = Image(
        publisher="",
        offer="",
        sku="",
        version="",
        node_agent_sku="",
        is_verified=True,
        is_linux=True,
        end_of_life_at=None,
    )
    start_task = StartTask(command_line="", files=())
    pool_properties(
        PoolSpec(
            pool_id="",
            vm_size="",
            image=image,
            slots_per_node=1,
            autoscale_formula="",
            start_task=start_task,
            metadata={},
            setup=setup,
        )
    )


def _image_reference(image: Image) -> dict[str, str]:
    if image.resource_id is not None:
        return {"virtualMachineImageId": image.resource_id}
    return {"publisher": image.publisher, "offer": image.offer, "sku": image.sku, "version": image.version}


def _containers(image: str, setup: PoolSetup) -> dict[str, Any]:
    configuration: dict[str, Any] = {"type": "dockerCompatible", "containerImageNames": [image]}
    if setup.registry_server is not None:
        registry: dict[str, Any] = {"registryServer": setup.registry_server}
        if setup.registry_identity is not None:
            registry["identityReference"] = {"resourceId": setup.registry_identity}
        configuration["containerRegistries"] = [registry]
    return configuration


def _network(setup: PoolSetup) -> dict[str, Any]:
    network: dict[str, Any] = {}
    if setup.subnet_id is not None:
        network["subnetId"] = setup.subnet_id
    if not setup.public_addresses:
        network["publicIPAddressConfiguration"] = {"provision": "nopublicipaddresses"}
    return network


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _names(each)


def _merged(ours: Mapping[str, Any], extra: Mapping[str, Any], path: str) -> dict[str, Any]:
    merged = dict(ours)
    for name, value in extra.items():
        if name not in ours:
            merged[name] = value
        elif isinstance(value, dict) and isinstance(ours[name], dict):
            merged[name] = _merged(ours[name], value, f"{path}{name}.")
        else:
            raise ConfigurationError(f"extra of the pool has {path}{name}, which topn sets: use its own field for it.")
    return merged
