"""A plugin of pytest with the fixtures `local_batch`, `local_azure` and `azure_faults`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from localbatch.faults.script import Faults
from localbatch.local_azure import LocalAzure
from localbatch.local_batch import LocalBatch

_T = TypeVar("_T")

POLL_SECONDS = 0.01

# The required properties of a pool with nodes of one core, as JSON and as arguments of the models of the official SDK.
MACHINE_JSON: dict[str, Any] = {
    "vmSize": "standard_a1_v2",
    "virtualMachineConfiguration": {
        "imageReference": {"publisher": "canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": "22_04-lts"},
        "nodeAgentSKUId": "batch.node.ubuntu 22.04",
    },
}
MACHINE: dict[str, Any] = {
    "vm_size": MACHINE_JSON["vmSize"],
    "virtual_machine_configuration": MACHINE_JSON["virtualMachineConfiguration"],
}


@pytest.fixture
def local_batch(tmp_path: Path) -> Iterator[LocalBatch]:
    """A new Batch account without delays in transitional states."""
    with LocalBatch(state_dir=tmp_path / "localbatch", pace="instant") as batch:
        yield batch


@pytest.fixture(scope="session")
def local_azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAzure]:
    """One local Azure for all tests: a Batch account, and a storage account with Azurite."""
    with LocalAzure(state_dir=tmp_path_factory.mktemp("azure"), pace="instant") as azure:
        yield azure


@pytest.fixture
def azure_faults(local_azure: LocalAzure) -> Iterator[Faults]:
    """The fault script of the shared Batch account, cleared after each test."""
    yield local_azure.faults
    local_azure.faults.clear()


def wait_until(condition: Callable[[], _T], *, timeout_seconds: float = 60.0) -> _T:
    """Poll a condition until it is true, and return its value. A condition that takes long is polled less often.

    Raises:
        TimeoutError: It was not true in time; the message has its last value.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        started_at = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"still {value!r} after {timeout_seconds} s")
        time.sleep(max(POLL_SECONDS, 2 * (now - started_at)))
