"""The properties of the pool that a run creates, with their names in the Batch REST API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.azure.values import Image, PoolSpec
from tasks.errors import ConfigurationError
from tasks.model.pool import PoolOptions, PoolSetup

# Properties that `extra` cannot set because topn sets them, and the field to use instead.
FIELDS = {"startTask": "start_commands", "targetDedicatedNodes": "nodes", "targetLowPriorityNodes": "spot_nodes"}

# Prefect shows the parameters of a run, so they must not contain secrets.
SECRETS = frozenset({"password", "accountKey", "sasKey", "sshPrivateKey", "protectedSettings"})

# Properties with the resource id of a subnet or of an image.
EXTERNAL_RESOURCES = frozenset({"subnetId", "virtualMachineImageId"})

# The minimum that Batch accepts. Source: https://learn.microsoft.com/azure/batch/batch-automatic-scaling
MIN_EVALUATION_INTERVAL = "PT5M"


def pool_properties(spec: PoolSpec) -> dict[str, Any]:
    """Return all properties of a pool except its start task.

    Raises:
        ConfigurationError: `extra` sets a property that topn sets.
    """
    ours = _own_properties(
        spec.options,
        pool_id=spec.pool_id,
        formula=spec.autoscale_formula,
        image_reference=_image_reference(spec.image),
        node_agent_sku=spec.image.node_agent_sku,
        metadata=spec.metadata,
    )
    return _with_extra(ours, spec.options.setup.extra)


def external_resource(setup: PoolSetup) -> str | None:
    """Return the option that gives a pool a subnet or an image of the user; None if there is none."""
    if setup.subnet_id is not None:
        return "subnet_id"
    if setup.image_id is not None:
        return "image_id"
    return next((f"extra: {name}" for name in _names(setup.extra) if name in EXTERNAL_RESOURCES), None)


def check_extra(options: PoolOptions) -> None:
    """Check that `extra` contains no secret and nothing that topn sets.

    Raises:
        ConfigurationError: `extra` contains one of these.
    """
    extra = options.setup.extra
    for name in _names(extra):
        if name in SECRETS:
            raise ConfigurationError(
                f"`extra` of the pool contains `{name}`. Prefect shows the parameters of a run, so they must not contain "
                "secrets. Use an identity reference."
            )
    _with_extra(_own_properties(options), extra)


def _own_properties(
    options: PoolOptions,
    *,
    pool_id: str = "",
    formula: str = "",
    image_reference: Mapping[str, str] | None = None,
    node_agent_sku: str = "",
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return what topn sets. To check `extra`, only the names matter, so the values of the run can be left out."""
    setup = options.setup
    machine: dict[str, Any] = {"imageReference": image_reference or "", "nodeAgentSKUId": node_agent_sku}
    if setup.container_image is not None:
        machine["containerConfiguration"] = {
            "type": "dockerCompatible",
            "containerImageNames": [setup.container_image],
        }
    properties: dict[str, Any] = {
        "id": pool_id,
        "displayName": pool_id,
        "vmSize": options.vm_size,
        "virtualMachineConfiguration": machine,
        "enableAutoScale": True,
        "autoScaleFormula": formula,
        "autoScaleEvaluationInterval": MIN_EVALUATION_INTERVAL,
        "taskSlotsPerNode": options.slots,
        "metadata": [{"name": name, "value": value} for name, value in (setup.metadata | dict(metadata or {})).items()],
    }
    if network := _network(setup):
        properties["networkConfiguration"] = network
    return properties


def _with_extra(ours: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    for name in FIELDS.keys() & extra.keys():
        raise ConfigurationError(f"`extra` of the pool contains `{name}`. Use `{FIELDS[name]}` instead.")
    return _merged(ours, extra, "")


def _image_reference(image: Image) -> dict[str, str]:
    if image.resource_id is not None:
        return {"virtualMachineImageId": image.resource_id}
    return {"publisher": image.publisher, "offer": image.offer, "sku": image.sku, "version": image.version}


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
            raise ConfigurationError(
                f"`extra` of the pool contains `{path}{name}`, which topn sets. Use the option for it."
            )
    return merged
