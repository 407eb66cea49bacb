"""Helpers for tests of servers: a client, a Batch task, and the processes that a test has started."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential

from localbatch.testing import MACHINE, wait_until

LOCALBATCH = [sys.executable, "-m", "localbatch"]


def open_client(endpoint, account, key):
    return BatchClient(endpoint, AzureNamedKeyCredential(account, key), retry_total=0)


def start_task(endpoint, account, key, command_line, state="running"):
    """Start one Batch task, and wait until it has this state."""
    with open_client(endpoint, account, key) as client:
        client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, target_dedicated_nodes=1))
        client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))
        client.create_task("j", models.BatchTaskCreateOptions(id="t", command_line=command_line))
        wait_until(lambda: client.get_task("j", "t").state == state)


def processes(marker):
    """Return the processes that have a text in their command line or their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(marker).encode() in (entry / name).read_bytes() for name in ("cmdline", "environ")):
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def command_lines(marker):
    """Return the command lines of those processes."""
    lines = []
    for pid in processes(marker):
        with contextlib.suppress(OSError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_text())
    return lines
