"""The supported images: some of each kind that Azure Batch lists, and the VM sizes that they fit.

https://learn.microsoft.com/rest/api/batchservice/pools/list-supported-images
"""

from __future__ import annotations

from typing import NamedTuple

from localbatch.account.specs import Json, PoolSpec
from localbatch.account.vm_sizes import architecture_of, generations_of

# Batch lists ARM64 images of Ubuntu 24.04 and Ubuntu HPC: https://github.com/Azure/Batch/issues/185 and
# https://github.com/Azure/azhpc-images/issues/603. It marks images of generation 2 with a capability:
# https://github.com/Azure/Batch/issues/178. The SKU of an image is of generation 2 in ubuntu-24_04-lts and ubuntu-hpc, unless
# it ends in -gen1 (https://github.com/Azure-Samples/azure-batch-samples/pull/328), and of generation 1 in other offers, unless
# it ends in -gen2, -g2 or -gensecond.
GENERATION_2 = "Generation2VMImage"


class _Image(NamedTuple):
    node_agent: str
    publisher: str
    offer: str
    sku: str
    generation: int = 1
    architecture: str = "x64"
    os: str = "linux"
    verification: str = "verified"
    end_of_life: str | None = None
    capabilities: tuple[str, ...] = ()


_UBUNTU_22, _UBUNTU_24, _UBUNTU_24_ARM = (
    f"batch.node.ubuntu {version}" for version in ("22.04", "24.04", "24.04-arm64")
)
_JAMMY = "0001-com-ubuntu-server-jammy"
_HPC = ("DockerCompatible", "NvidiaTeslaDriverInstalled")
_IMAGES = (
    _Image(_UBUNTU_22, "canonical", _JAMMY, "22_04-lts"),
    _Image(_UBUNTU_22, "canonical", _JAMMY, "22_04-lts-gen2", generation=2),
    _Image(_UBUNTU_24, "canonical", "ubuntu-24_04-lts", "server", generation=2),
    _Image(_UBUNTU_24, "canonical", "ubuntu-24_04-lts", "server-gen1"),
    _Image(_UBUNTU_24_ARM, "canonical", "ubuntu-24_04-lts", "server-arm64", generation=2, architecture="Arm64"),
    _Image(
        "batch.node.ubuntu 20.04", "canonical", "0001-com-ubuntu-server-focal", "20_04-lts", end_of_life="2025-04-23"
    ),
    _Image(_UBUNTU_22, "microsoft-dsvm", "ubuntu-hpc", "2204", generation=2, capabilities=_HPC),
    _Image(_UBUNTU_24, "microsoft-dsvm", "ubuntu-hpc", "2404", generation=2, capabilities=_HPC),
    _Image(
        _UBUNTU_24_ARM,
        "microsoft-dsvm",
        "ubuntu-hpc",
        "2404-arm64",
        generation=2,
        architecture="Arm64",
        capabilities=_HPC,
    ),
    _Image("batch.node.debian 12", "debian", "debian-12", "12", verification="unverified"),
    _Image("batch.node.debian 12", "debian", "debian-12", "12-gen2", generation=2, verification="unverified"),
    _Image("batch.node.el 9", "almalinux", "almalinux-x86_64", "9-gen1", verification="unverified"),
    _Image("batch.node.el 9", "almalinux", "almalinux-x86_64", "9-gen2", generation=2, verification="unverified"),
    *(
        _Image("batch.node.windows amd64", "microsoftwindowsserver", "windowsserver", sku, os="windows")
        for year in (2016, 2019, 2022)
        for sku in (f"{year}-datacenter", f"{year}-datacenter-smalldisk")
    ),
    *(
        _Image("batch.node.windows amd64", "microsoftwindowsserver", "windowsserver", sku, generation=2, os="windows")
        for sku in ("2019-datacenter-gensecond", "2022-datacenter-g2", "2022-datacenter-smalldisk-g2")
    ),
)


def _json(image: _Image) -> Json:
    body: Json = {
        "nodeAgentSKUId": image.node_agent,
        "imageReference": {
            "publisher": image.publisher,
            "offer": image.offer,
            "sku": image.sku,
            "version": "latest",
        },
        "osType": image.os,
        "verificationType": image.verification,
    }
    capabilities = [*image.capabilities, *([GENERATION_2] if image.generation == 2 else [])]  # noqa: PLR2004
    if capabilities:
        body["capabilities"] = capabilities
    if image.end_of_life:
        body["batchSupportEndOfLife"] = f"{image.end_of_life}T00:00:00Z"
    return body


# In the order of the list.
IMAGES = {f"{index:04}": _json(image) for index, image in enumerate(_IMAGES)}
_BY_NAME = {(image.publisher, image.offer, image.sku): image for image in _IMAGES}
NODE_AGENTS = frozenset(image.node_agent for image in _IMAGES)


def listed_image(reference: Json) -> _Image | None:
    """Return the image that an imageReference names, if it is listed."""
    publisher, offer, sku = (str(reference.get(name)).lower() for name in ("publisher", "offer", "sku"))
    return _BY_NAME.get((publisher, offer, sku))


def mismatch(spec: PoolSpec) -> str | None:
    """Return the message of the provider if the image of a pool cannot boot on its VM size, otherwise None.

    Only listed images and VM sizes with a usual name are checked.
    """
    image = listed_image(spec.get("virtualMachineConfiguration", {}).get("imageReference", {}))
    size = spec["vmSize"]
    architecture = architecture_of(size)
    if not image or not architecture:
        return None
    if architecture != image.architecture:
        return (
            f"Cannot create a VM of size '{size}' because this VM size only supports a CPU Architecture of "
            f"'{architecture}', but an image or disk with CPU Architecture '{image.architecture}' was given. Please check "
            "that the CPU Architecture of the image or disk is compatible with that of the VM size."
        )
    if image.generation in generations_of(size):
        return None
    return (
        f"The selected VM size '{size}' cannot boot Hypervisor Generation '{image.generation}'. If this was a Create "
        "operation please check that the Hypervisor Generation of the Image matches the Hypervisor Generation of the "
        "selected VM Size. If this was an Update operation please select a Hypervisor Generation "
        f"'{image.generation}' VM Size. For more information, see https://aka.ms/azuregen2vm"
    )
