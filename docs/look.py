"""Show the resources of topn in the two accounts, for the tutorial: `python docs/look.py containers|pool|job`.

With `--delete`, it deletes these resources, on a local Azure only. It queries the services with the official SDKs.
Therefore it shows what exists in the accounts, and not what topn recorded.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from azure.batch import BatchClient
from azure.core.credentials import AzureNamedKeyCredential
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient

from flows.servers.connect import use_make_up_servers
from tasks.azure.settings import account_of, load_settings, state_folder
from tasks.model.naming import NAME_PREFIX, RUN_NAME


def main() -> int:
    """Print or delete the resources. Return the exit code."""
    use_make_up_servers(state_folder())
    azure: Any = load_settings()
    blobs = BlobServiceClient(azure.storage_endpoint, _credential(azure, "storage"))
    batch = BatchClient(azure.batch_endpoint, _credential(azure, "batch"))
    listings = {"containers": lambda: _containers(blobs), "pool": lambda: _pools(batch), "job": lambda: _jobs(batch)}
    deletions: dict[str, Callable[[str], object]] = {
        "containers": blobs.delete_container,
        "pool": batch.begin_delete_pool,
        "job": batch.begin_delete_job,
    }
    kind, *options = sys.argv[1:] or [""]
    if kind not in listings or options not in ([], ["--delete"]):
        print("usage: python docs/look.py containers|pool|job [--delete]", file=sys.stderr)
        return 2
    if options and account_of(azure.batch_endpoint):
        print("`--delete` is only allowed on a local Azure. Other users may have runs in this one.", file=sys.stderr)
        return 2
    found = list(listings[kind]())
    if not found:
        print("none")
    for name, lines in found:
        print(name if not options else f"deleted: {name}")
        if options:
            deletions[kind](name)
        else:
            print(textwrap.indent("\n".join(lines), "  "))
    return 0


def _containers(blobs: Any) -> Iterator[tuple[str, list[str]]]:
    for container in blobs.list_containers(NAME_PREFIX):
        if not RUN_NAME.fullmatch(container.name):
            continue  # The partials of the corpus belong to no run.
        found = blobs.get_container_client(container.name).list_blobs()
        yield container.name, [f"{blob.name}  {blob.size:,} bytes" for blob in found]


def _pools(batch: Any) -> Iterator[tuple[str, list[str]]]:
    for pool in batch.list_pools():
        if pool.id.startswith(NAME_PREFIX) and pool.state != "deleting":
            nodes = [f"node {node.id}: {node.state.value}" for node in batch.list_nodes(pool.id)]
            yield pool.id, [f"size {pool.vm_size}", f"start task: {pool.start_task.command_line}", *nodes]


def _jobs(batch: Any) -> Iterator[tuple[str, list[str]]]:
    for job in batch.list_jobs():
        if job.id.startswith(NAME_PREFIX) and job.state != "deleting":
            lines = [f"ends after {job.constraints.max_wall_clock_time}"]
            for task in batch.list_tasks(job.id):
                lines += [
                    f"Batch task {task.id}: {task.state.value}, exit code {task.execution_info.exit_code}",
                    textwrap.indent(task.command_line, "  "),
                ]
            yield job.id, lines


def _credential(azure: Any, service: str) -> DefaultAzureCredential | AzureNamedKeyCredential:
    """Return the key of an account as a credential, or the default identity if no key is configured."""
    key = getattr(azure, f"{service}_key")
    if key is None:
        return DefaultAzureCredential()
    name: Any = getattr(azure, f"{service}_account") or account_of(getattr(azure, f"{service}_endpoint"))
    return AzureNamedKeyCredential(name, key.get_secret_value())


if __name__ == "__main__":
    sys.exit(main())
