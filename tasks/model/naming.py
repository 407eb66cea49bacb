"""Names and metadata of the resources that a run creates."""

from __future__ import annotations

from collections.abc import Mapping

OWNER = "topn"

NAME_PREFIX = "topn-"


def is_owned_by(flow_run_id: str, metadata: Mapping[str, str]) -> bool:
    """Check whether a resource with this metadata belongs to a flow run. Its name alone is no proof."""
    return metadata.get("owner") == OWNER and metadata.get("flow_run_id") == flow_run_id


def run_prefix(flow_run_id: str) -> str:
    """Return the prefix of all names of a flow run, over all its generations."""
    return f"{NAME_PREFIX}{flow_run_id.replace('-', '')}-"


# Keys of the metadata by which a run recognizes its own resources.
METADATA_KEYS = frozenset({"owner", "flow_run_id", "expires_at", "prefect_api", "kept"})
