"""How two runs differ, and their values as texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.report.manifest import Entry, Manifest
from tasks.text import shorten

FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a run differs from another one.

    Attributes:
        new: Files that only the second run had.
        changed: Files whose content differs, in the first and in the second run.
        missing: Files that only the first run had.
        failed: Files that failed in the second run.
        newly_failed: Files of both runs that failed in the second one only.
        recovered: Files that failed in the first run only.
        same: Number of files with the same content in both.
        run: What differs of both runs, by part and name: a value of each.
        before: What the manifest of the first run says about it.
    """

    new: tuple[Entry, ...]
    changed: tuple[tuple[Entry, Entry], ...]
    missing: tuple[Entry, ...]
    failed: tuple[Entry, ...]
    newly_failed: tuple[Entry, ...]
    recovered: tuple[Entry, ...]
    same: int
    run: Mapping[str, Mapping[str, tuple[Any, Any]]]
    before: Mapping[str, Any]

    @property
    def lists(self) -> dict[str, tuple[Entry, ...]]:
        """The files that differ, by how they differ. A file can be in two lists."""
        return {
            "new": self.new,
            "changed": tuple(entry for _, entry in self.changed),
            "missing": self.missing,
            "newly failed": self.newly_failed,
            "no longer failed": self.recovered,
        }

    @property
    def line(self) -> str:
        """The number of files that differ, in one line."""
        counts = [f"{len(files):,} {kind}" for kind, files in self.lists.items() if files]
        return f"{', '.join(counts) or 'no file differs'}; {self.same:,} with the same content"


def compare(before: Manifest, after: Manifest) -> Comparison:
    """Compare two runs."""
    old, new = ({entry.name: entry for entry in manifest.entries} for manifest in (before, after))
    both = [(old[name], entry) for name, entry in new.items() if name in old]
    changed = [pair for pair in both if _is_changed(*pair)]
    parts = {part: (_mapping(before, part), _mapping(after, part)) for part in ("parameters", "figures", "steps")}
    return Comparison(
        new=tuple(entry for name, entry in new.items() if name not in old),
        changed=tuple(changed),
        missing=tuple(entry for name, entry in old.items() if name not in new),
        failed=tuple(entry for entry in new.values() if entry.status == FAILED),
        newly_failed=tuple(entry for first, entry in both if first.status != FAILED == entry.status),
        recovered=tuple(entry for first, entry in both if first.status == FAILED != entry.status),
        same=len(both) - len(changed),
        run={
            part: {
                name: (first.get(name), second.get(name))
                for name in {**first, **second}
                if first.get(name) != second.get(name)
            }
            for part, (first, second) in parts.items()
        },
        before=before.run,
    )


def _mapping(manifest: Manifest, part: str) -> Mapping[str, Any]:
    return manifest.run.get(part) or {}


def _is_changed(before: Entry, after: Entry) -> bool:
    """Check whether the content of a file differs. A blob that was not counted has no hash of its content."""
    return before.sha256 != after.sha256 and not (before.etag and before.etag == after.etag)


def value_text(value: Any) -> str:
    """Return the value of a parameter or a figure."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.10g}"
    return shorten(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def pair_texts(values: tuple[Any, Any]) -> tuple[str, str, str]:
    """Return two values and their difference, if they are numbers."""
    first, second = (_number(value) for value in values)
    change = "" if first is None or second is None else f"{second - first:+,}"
    before, after = ("-" if value is None else value_text(value) for value in values)
    return before, after, change


def _number(value: Any) -> int | None:
    """Return a number, also if it is a text with separators of thousands."""
    try:
        return None if isinstance(value, bool) else int(value.replace(",", "") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None
