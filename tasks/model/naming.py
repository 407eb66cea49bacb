"""Names and ownership marks of everything that a run creates."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Metadata by which a run recognizes its own resources.
OWNER = "topn"
# Metadata of a job whose run is being cleaned up, or was. A later attempt of the flow run does not adopt it.
CLEANUP_MARK = "cleanup"
METADATA_KEYS = frozenset({"owner", "flow_run_id", "expires_at", "kept", CLEANUP_MARK})

# Pools, jobs and containers: `topn-<32 hexadecimal digits of the flow run id>-<generation>`, and a suffix for containers.
NAME_PREFIX = "topn-"
APPLICATION_SUFFIX, INPUTS_SUFFIX, OUTPUTS_SUFFIX = "-app", "-in", "-out"
RUN_NAME = re.compile(
    rf"(?P<attempt>{NAME_PREFIX}[0-9a-f]{{32}}-\d+)({APPLICATION_SUFFIX}|{INPUTS_SUFFIX}|{OUTPUTS_SUFFIX})?"
)

# Batch tasks of one file, of an archive of several, of a merge, and of the last merge, which has the corpus.
FILE_TASK_PREFIX, ARCHIVE_TASK_PREFIX = "f-", "p-"
MERGE_TASK_PREFIX, CORPUS_TASK_PREFIX = "m-", "c-"

# The container with the partials of all runs, and its metadata. Neither is that of a run, so no sweep deletes it.
PARTIALS_CONTAINER = "topn-partials"
PARTIALS_METADATA = {"owner": OWNER, "purpose": "partials"}
FILES_FOLDER, MERGES_FOLDER = "files/", "merges/"

# The archive of all packs that have no file of this machine: it contains only what the node runs.
BLOBS_ARCHIVE = "blobs.tar"

# Key of the artifact that records the last cleanup of a flow run.
CLEANUP_ARTIFACT = "topn-cleanup"


def run_prefix(flow_run_id: str) -> str:
    """Return the prefix of all names of a flow run, over all its generations."""
    return f"{NAME_PREFIX}{flow_run_id.replace('-', '')}-"


def is_owned_by(flow_run_id: str, metadata: Mapping[str, str]) -> bool:
    """Check whether a resource with this metadata belongs to a flow run. Its name alone is no proof."""
    return metadata.get("owner") == OWNER and metadata.get("flow_run_id") == flow_run_id


def batch_task_id(key: str, *, is_archive: bool) -> str:
    """Return the id of the Batch task for a content key, or for the hash of several: the same in every attempt."""
    return f"{ARCHIVE_TASK_PREFIX if is_archive else FILE_TASK_PREFIX}{key[:32]}"


def is_archive_task(task_id: str) -> bool:
    """Check whether a Batch task has processed an archive of several files."""
    return task_id.startswith(ARCHIVE_TASK_PREFIX)


def merge_task_id(key: str, *, is_last: bool) -> str:
    """Return the id of the Batch task for a merge. Its key can be read from it."""
    return f"{CORPUS_TASK_PREFIX if is_last else MERGE_TASK_PREFIX}{key}"


def merge_key(task_id: str) -> str | None:
    """Return the key of the merge that a Batch task has done; None if it has processed files."""
    prefix, key = task_id[: len(MERGE_TASK_PREFIX)], task_id[len(MERGE_TASK_PREFIX) :]
    return key if prefix in {MERGE_TASK_PREFIX, CORPUS_TASK_PREFIX} else None


def is_last_merge(task_id: str) -> bool:
    """Check whether a Batch task has done the last merge of a run."""
    return task_id.startswith(CORPUS_TASK_PREFIX)


def partial_blob(outputs: str, task_id: str) -> str:
    """Return the name of the blob that keeps the partials of a Batch task, whose run has this output container.

    Merges of the same partials are the same, in whatever run.
    """
    return f"{FILES_FOLDER}{outputs}/{task_id}" if merge_key(task_id) is None else f"{MERGES_FOLDER}{task_id}"


def input_blob(task_id: str, sha256: str | None) -> str:
    """Return the name of the input of a Batch task: the SHA-256 of a single file, or the archive of several."""
    return sha256 or f"{task_id}.tar"


def output_blob(task_id: str, name: str) -> str:
    """Return the name of the blob for an output file of a Batch task."""
    return f"{task_id}/{name}"
