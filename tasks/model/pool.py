"""The options of a pool: which one, how large, and how its nodes are set up.

Everything is validated before anything is created. Properties without a field of their own go into `extra`, under their
names in the Batch REST API, and are passed on unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

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
from typing_extensions import Self

from tasks.errors import ConfigurationError
from tasks.model.naming import METADATA_KEYS
from tasks.text import printable

# Source: Azure Batch documentation, "Create Pool": the id, taskSlotsPerNode, targetDedicatedNodes.
POOL_ID_PATTERN = "[A-Za-z0-9_-]{1,64}"
MAX_SLOTS_PER_NODE = 256
MAX_NODES = 10_000

PoolId = Annotated[str, Field(pattern=f"^{POOL_ID_PATTERN}$")]
NodeCount = Annotated[int, Field(ge=1, le=MAX_NODES)]
SpotNodeCount = Annotated[int, Field(ge=0, le=MAX_NODES)]
SlotCount = Annotated[int, Field(ge=1, le=MAX_SLOTS_PER_NODE)]

# How the resource ids begin, and how the id of each field continues.
GROUP = "/subscriptions/[^/]+/resourceGroups/[^/]+/providers/"
RESOURCE_IDS = {
    "subnet_id": r"Microsoft\.Network/virtualNetworks/[^/]+/subnets/[^/]+",
    "image_id": r"Microsoft\.Compute/(images/[^/]+|galleries/[^/]+/images/[^/]+(/versions/[^/]+)?)",
    "registry_identity": r"Microsoft\.ManagedIdentity/userAssignedIdentities/[^/]+",
}

Text = Annotated[str, Field(min_length=1)]


class PoolSetup(BaseModel):
    """How the nodes of a pool are set up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subnet_id: Text | None = Field(default=None, description="Resource id of the subnet that the nodes join.")
    public_addresses: bool = Field(default=True, description="Whether the nodes have public IP addresses.")
    image_family: Text = Field(
        default="batch.node.ubuntu",
        description="What the node agent of the image begins with; the newest verified image of the family is taken.",
    )
    image_id: Text | None = Field(
        default=None, description="Resource id of an image of your own, in a gallery or not. Needs node_agent_sku."
    )
    node_agent_sku: Text | None = Field(
        default=None, description='The node agent for an image of your own, such as "batch.node.ubuntu 22.04".'
    )
    container_image: Text | None = Field(
        default=None, description="The container image in which Batch tasks run; it needs sh and what the work needs."
    )
    registry_server: Text | None = Field(
        default=None,
        description="The registry of the container image, such as mine.azurecr.io, where it is not public.",
    )
    registry_identity: Text | None = Field(
        default=None, description="Resource id of the managed identity that may pull from the registry."
    )
    start_commands: tuple[Text, ...] = Field(
        default=(), description="Commands for /bin/sh that each node runs after ours, before it takes Batch tasks."
    )
    start_as_admin: bool = Field(default=False, description="Whether the start task runs as root.")
    metadata: dict[Text, str] = Field(default={}, description="Metadata (tags) that the pool gets beside ours.")
    node_identity: Text | None = Field(
        default=None,
        description=(
            "With pool_id: name or resource id of the pool's managed identity by which nodes read and write blobs; "
            '"none" for signed URLs. Needed only where the pool has several.'
        ),
    )
    extra: dict[str, JsonValue] = Field(
        default={}, description="Further properties of the pool, by their names in the Batch REST API."
    )

    # Not patterns of the fields: the browser that shows Prefect's form has another language of patterns.
    @field_validator(*RESOURCE_IDS)
    @classmethod
    def _check_resource_id(cls, value: str | None, info: ValidationInfo) -> str | None:
        pattern = GROUP + RESOURCE_IDS[str(info.field_name)]
        if value is not None and not re.fullmatch(pattern, value, re.IGNORECASE):
            raise ValueError("this is not the resource id of one, as the portal shows it (/subscriptions/…)")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.image_id is None) != (self.node_agent_sku is None):
            raise ValueError("image_id and node_agent_sku belong together")
        if self.registry_server is not None and self.container_image is None:
            raise ValueError("registry_server is of no use without container_image")
        if self.registry_identity is not None and self.registry_server is None:
            raise ValueError("registry_identity is of no use without registry_server")
        if taken := sorted(METADATA_KEYS & self.metadata.keys()):
            raise ValueError(f"the metadata {', '.join(taken)} is topn's own: name it otherwise")
        return self

    @property
    def fields_of_created_pools(self) -> list[str]:
        """The fields that are set and that only a created pool can have."""
        # Compare with the defaults: Prefect's form sends every field.
        return sorted(self.model_dump(exclude_defaults=True).keys() - {"node_identity", "container_image"})


DEFAULT_SETUP = PoolSetup()


class PoolOptions(BaseModel):
    """What a user can choose about the pool of a run.

    Attributes:
        pool_id: An existing pool to use, which is never changed and never deleted; None creates one for the run.
        vm_size: VM size of a created pool.
        nodes: Maximum number of dedicated nodes of a created pool.
        spot_nodes: Maximum number of spot nodes; dedicated nodes then only do what spot nodes cannot.
        slots_per_node: Number of Batch tasks that run in parallel on each node of a created pool; None is one per core.
        setup: How the nodes are set up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pool_id: PoolId | None = None
    vm_size: Text = "standard_d2s_v3"
    nodes: NodeCount = 2
    spot_nodes: SpotNodeCount = 0
    slots_per_node: SlotCount | None = None
    setup: PoolSetup = DEFAULT_SETUP

    @property
    def slots(self) -> int:
        """The slots of each node of a created pool; 1 if the name of the VM size does not contain its cores."""
        return self.slots_per_node or min(cores_of(self.vm_size) or 1, MAX_SLOTS_PER_NODE)

    def check(self) -> None:
        """Check that the options agree with each other.

        Raises:
            ConfigurationError: They do not.
        """
        if self.pool_id is None:
            if self.setup.node_identity is not None:
                raise ConfigurationError(
                    "`node_identity` needs an existing pool. Name the pool with `pool_id`, or leave `node_identity` out."
                )
        elif unusable := self.setup.fields_of_created_pools:
            raise ConfigurationError(
                f"Pool `{self.pool_id}` exists and is used unchanged. Leave out {', '.join(unusable)}, or `pool_id`."
            )


DEFAULT_POOL = PoolOptions()


def cores_of(vm_size: str) -> int | None:
    """Return the number of cores (vCPUs) in the name of a VM size; None if the name does not contain it.

    Source: Azure documentation, "Azure virtual machine sizes naming conventions": family letters, the cores, then the
    available cores of a constrained size. Names before version 3 do not follow it: Standard_D3_v2 has 4.
    """
    match = re.fullmatch(r"standard_[a-z]+(\d+)(?:-(\d+))?[a-z]*(?:_[a-z0-9]+)*_v([3-9]|\d\d)", vm_size.lower())
    return int(match.group(2) or match.group(1)) if match else None


def read_pool_setup(path: str) -> PoolSetup:
    """Read a file of YAML or JSON with the fields of a set-up.

    Raises:
        ConfigurationError: It cannot be read, or says what cannot be.
    """
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
        return PoolSetup.model_validate(content)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The pool file {printable(path)} cannot be used: {_sentence(error)}.") from error


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        words = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {words}" if where else words
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join(str(reason).split())
