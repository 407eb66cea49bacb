"""Shows what the runs of topn have in the two accounts, for the tutorial: `python docs/look.py containers|pool|job`.

With `--delete`, deletes what it shows; on a local Azure only. It asks the services as any client may, with the official
libraries, and so says what is there and not what the flow believes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from azure.batch import BatchClient
from azure.core.credentials import AzureNamedKeyCredential
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient

from flows.servers.connect import use_up
from tasks.azure.settings import account_of, load_settings, state_folder
from tasks.model.naming import NAME_PREFIX


def main() -> int:
    """Show, and perhaps delete; returns the exit status."""
    use_up(state_folder())
    azure: Any = load_settings()
    blobs = BlobServiceClient(azure.storage_endpoint, _credential(azure, "storage"))
    batch = BatchClient(azure.batch_endpoint, _credential(azure, "batch"))
    shows = {"containers": lambda: _containers(blobs), "pool": lambda: _pools(batch), "job": lambda: _jobs(batch)}
    deletes: dict[str, Callable[[str], object]] = {
        "containers": blobs.delete_container,
        "pool": batch.begin_delete_pool,
        "job": batch.begin_delete_job,
    }
    what, *options = sys.argv[1:] or [""]
    if what not in shows or options not in ([], ["--delete"]):
        print("usage: python docs/look.py containers|pool|job [--delete]", file=sys.stderr)
        return 2
    if options and account_of(azure.batch_endpoint):
        print("--delete is for a local Azure: here, others may have runs too.", file=sys.stderr)
        return 2
    found = list(shows[what]())
    if not found:
        print("none")
    for name, lines in found:
        print(name if not options else f"deleted: {name}")
        if options:
            deletes[what](name)
        else:
            print(*(f"  {line}" for line in lines), sep="\n")
    return 0


def _containers(blobs: Any) -> Iterator[tuple[str, list[str]]]:
    for container in blobs.list_containers(NAME_PREFIX):
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
                    f"  {task.command_line}",
                ]
            yield job.id, lines


def _credential(azure: Any, service: str) -> DefaultAzureCredential | AzureNamedKeyCredential:
    """Give the key of an account, or the identity that is found where there is none."""
    key = getattr(azure, f"{service}_key")
    if key is None:
        return DefaultAzureCredential()
    name: Any = getattr(azure, f"{service}_account") or account_of(getattr(azure, f"{service}_endpoint"))
    return AzureNamedKeyCredential(name, key.get_secret_value())


if __name__ == "__main__":
    sys.exit(main())
