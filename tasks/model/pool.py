"""Options of a pool: an existing pool or the size of a new one, and the configuration of its nodes.

All options are validated before any resource is created. Properties that have no field of their own are set in ``extra``,
by their names in the Batch REST API, and are passed to the service unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tasks.errors import ConfigurationError
from tasks.model.naming import METADATA_KEYS
from tasks.model.vm_size import vm_size
from tasks.text import printable

# Source of the pattern and of the maximum number of slots: https://learn.microsoft.com/rest/api/batchservice/pool/add
POOL_ID_PATTERN = "[A-Za-z0-9_-]{1,64}"
MAX_SLOTS_PER_NODE = 256
MAX_NODES = 10_000

PoolId = Annotated[str, Field(pattern=f"^{POOL_ID_PATTERN}$")]
NodeCount = Annotated[int, Field(ge=1, le=MAX_NODES)]
SpotNodeCount = Annotated[int, Field(ge=0, le=MAX_NODES)]
SlotCount = Annotated[int, Field(ge=1, le=MAX_SLOTS_PER_NODE)]

# The common prefix of the resource ids, and the rest of each field's id.
PROVIDER_PATTERN = "/subscriptions/[^/]+/resourceGroups/[^/]+/providers/"
RESOURCE_ID_PATTERNS = {
    "subnet_id": r"Microsoft\.Network/virtualNetworks/[^/]+/subnets/[^/]+",
    "image_id": r"Microsoft\.Compute/galleries/[^/]+/images/[^/]+(/versions/[^/]+)?",
}

Text = Annotated[str, Field(min_length=1)]
VmSize = Text


class PoolSetup(BaseModel):
    """Configuration of the nodes of a pool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subnet_id: Text | None = Field(default=None, description="Resource id of the subnet that the nodes join.")
    public_addresses: bool = Field(default=True, description="Whether the nodes have public IP addresses.")
    image_family: Text = Field(
        default="batch.node.ubuntu",
        description="Prefix of the image's node agent SKU. The newest verified image of the family is used.",
    )
    image_id: Text | None = Field(
        default=None, description="Resource id of a custom image in a gallery. Requires node_agent_sku."
    )
    node_agent_sku: Text | None = Field(
        default=None, description='Node agent SKU of the custom image, for example "batch.node.ubuntu 24.04".'
    )
    container_image: Text | None = Field(
        default=None,
        description=(
            "Container image in which Batch tasks run. It must contain sh and all that the workload needs. An image in a "
            "private registry requires pool_id, since only a pool of your own can have an identity."
        ),
    )
    start_commands: tuple[Text, ...] = Field(
        default=(), description="Commands for /bin/sh that each node runs after topn's own, before any Batch task."
    )
    start_as_admin: bool = Field(default=False, description="Whether the start task runs as root.")
    metadata: dict[Text, str] = Field(default={}, description="Metadata of the pool, in addition to topn's own.")
    node_identity: Text | None = Field(
        default=None,
        description=(
            "With pool_id: name or resource id of the pool's managed identity with which nodes access blobs; "
            '"none" for signed URLs. Required only if the pool has several.'
        ),
    )
    extra: dict[str, JsonValue] = Field(
        default={}, description="Other properties of the pool, by their names in the Batch REST API."
    )

    # The patterns are not part of the fields, since Prefect's form would evaluate them as JavaScript patterns.
    @field_validator(*RESOURCE_ID_PATTERNS)
    @classmethod
    def _check_resource_id(cls, value: str | None, info: ValidationInfo) -> str | None:
        pattern = PROVIDER_PATTERN + RESOURCE_ID_PATTERNS[str(info.field_name)]
        if value is not None and not re.fullmatch(pattern, value, re.IGNORECASE):
            raise ValueError("not a resource id of this type. Copy the id from the portal (/subscriptions/…)")
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if (self.image_id is None) != (self.node_agent_sku is None):
            raise ValueError("`image_id` and `node_agent_sku` must be set together")
        if reserved := sorted(METADATA_KEYS & self.metadata.keys()):
            raise ValueError(f"`metadata` contains {', '.join(reserved)}, which topn sets. Use other names")
        return self

    @property
    def fields_of_created_pools(self) -> list[str]:
        """Names of the fields that are set and apply to created pools only."""
        # Compare with the defaults, since Prefect's form sends every field.
        return sorted(self.model_dump(exclude_defaults=True).keys() - {"node_identity", "container_image"})


DEFAULT_SETUP = PoolSetup()


class PoolOptions(BaseModel):
    """Options for the pool of a run.

    Attributes:
        pool_id: Existing pool to use. It is never changed or deleted. None creates a pool for the run.
        vm_size: VM size of a created pool.
        nodes: Maximum number of dedicated nodes of a created pool.
        spot_nodes: Maximum number of spot nodes. If it is not 0, dedicated nodes only run what spot nodes cannot.
        slots_per_node: Number of Batch tasks that run in parallel on each node of a created pool; None for one per core.
        setup: Configuration of the nodes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pool_id: PoolId | None = None
    vm_size: VmSize = "standard_d2as_v5"
    nodes: NodeCount = 2
    spot_nodes: SpotNodeCount = 0
    slots_per_node: SlotCount | None = None
    setup: PoolSetup = DEFAULT_SETUP

    @property
    def slots(self) -> int:
        """Number of slots of each node of a created pool; 1 if the name of the VM size does not contain its cores."""
        return self.slots_per_node or min(vm_size(self.vm_size).cores or 1, MAX_SLOTS_PER_NODE)

    @property
    def _size_of_created_pool(self) -> list[str]:
        """Names of the options that are set and apply to created pools only."""
        return sorted(self.model_dump(exclude_defaults=True, exclude={"pool_id", "setup"}))

    def check(self) -> None:
        """Check that the options do not contradict each other.

        Raises:
            ConfigurationError: They contradict each other.
        """
        if self.pool_id is None:
            if self.setup.node_identity is not None:
                raise ConfigurationError(
                    "`node_identity` needs an existing pool. Name the pool with `pool_id`, or leave `node_identity` out."
                )
        elif unusable := [*self._size_of_created_pool, *self.setup.fields_of_created_pools]:
            raise ConfigurationError(
                f"Pool `{self.pool_id}` exists and is used unchanged. Leave out {', '.join(unusable)}, or `pool_id`."
            )


DEFAULT_POOL = PoolOptions()


def describe_cores(options: PoolOptions) -> str:
    """Return what the nodes of a created pool need at most, and where the user finds the quotas.

    Dedicated cores have a quota per VM family, and spot cores one per account.
    Source: https://learn.microsoft.com/azure/batch/batch-quota-limit
    """
    size = vm_size(options.vm_size)
    if size.cores is None or size.family is None:
        needs = f"A run starts up to {options.nodes} nodes of the VM size {size.name}."
    else:
        spot = f" and {options.spot_nodes * size.cores} spot cores" if options.spot_nodes else ""
        needs = f"A run needs up to {options.nodes * size.cores} cores of the VM family {size.family}{spot}."
    return f"{needs} Compare with the quotas in the portal (Batch account, Quotas)."


def read_pool_setup(path: str) -> PoolSetup:
    """Read the fields of a ``PoolSetup`` from a YAML or JSON file.

    Raises:
        ConfigurationError: The file cannot be read or is invalid.
    """
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
        return PoolSetup.model_validate(content)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The pool file {printable(path)} cannot be used: {_describe(error)}.") from error


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        return f"{field}: {message}" if field else message
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join(str(reason).split())
