"""The supported images: some of each kind that Azure Batch lists.

https://learn.microsoft.com/rest/api/batchservice/pools/list-supported-images
"""

from __future__ import annotations

from typing import NamedTuple

from localbatch.account.specs import Json


class _Image(NamedTuple):
    node_agent: str
    publisher: str
    offer: str
    sku: str
    os: str = "linux"
    verification: str = "verified"
    end_of_life: str | None = None
    capabilities: tuple[str, ...] = ()


_IMAGES = (
    _Image("batch.node.ubuntu 22.04", "canonical", "0001-com-ubuntu-server-jammy", "22_04-lts"),
    _Image("batch.node.ubuntu 24.04", "canonical", "ubuntu-24_04-lts", "server"),
    _Image(
        "batch.node.ubuntu 20.04", "canonical", "0001-com-ubuntu-server-focal", "20_04-lts", end_of_life="2025-04-23"
    ),
    _Image(
        "batch.node.ubuntu 22.04",
        "microsoft-dsvm",
        "ubuntu-hpc",
        "2204",
        capabilities=("DockerCompatible", "NvidiaTeslaDriverInstalled"),
    ),
    _Image("batch.node.debian 12", "debian", "debian-12", "12", verification="unverified"),
    _Image("batch.node.el 9", "almalinux", "almalinux-x86_64", "9-gen2", verification="unverified"),
    _Image("batch.node.windows amd64", "microsoftwindowsserver", "windowsserver", "2022-datacenter", os="windows"),
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
    if image.capabilities:
        body["capabilities"] = list(image.capabilities)
    if image.end_of_life:
        body["batchSupportEndOfLife"] = f"{image.end_of_life}T00:00:00Z"
    return body


# In the order of the list.
IMAGES = {f"{index:04}": _json(image) for index, image in enumerate(_IMAGES)}
