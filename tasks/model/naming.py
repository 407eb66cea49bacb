"""Names and ownership marks of everything that a run creates."""

from __future__ import annotations

from collections.abc import Mapping

OWNER = "topn"


NAME_PREFIX = "topn-"


def is_owned_by(flow_run_id: str, metadata: Mapping[str, str]) -> bool:
    """Whether a resource with this metadata is of a flow run: a name alone proves nothing."""
    return metadata.get("owner") == OWNER and metadata.get("flow_run_id") == flow_run_id


def run_prefix(flow_run_id: str) -> str:
    """What the names of all generations of a flow run begin with."""
    return f"{NAME_PREFIX}{flow_run_id.replace('-', '')}-"


# Metadata by which a run knows what is its own.
OUR_METADATA = frozenset({"owner", "flow_run_id", "expires_at", "prefect_api", "kept"})
