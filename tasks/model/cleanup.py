"""The result of a cleanup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HOW_TO_REMOVE = "Remove them later with `topn sweep`."

MAX_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Cleanup:
    """The result of a cleanup: names of resources, each with its kind, such as "job topn-…".

    Attributes:
        deleted: Resources whose deletion the service accepted.
        remaining: Resources that could not be deleted or listed, with the reasons.
    """

    deleted: tuple[str, ...] = ()
    remaining: Mapping[str, str] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """What could not be deleted and how to remove it; "" if nothing remains."""
        if not self.remaining:
            return ""
        listed = [f"{name} ({reason.rstrip('.')})" for name, reason in self.remaining.items()]
        if len(listed) > MAX_LISTED:
            listed[MAX_LISTED:] = [f"{len(listed) - MAX_LISTED} more"]
        return f"Could not delete {', '.join(listed)}. {HOW_TO_REMOVE}"
