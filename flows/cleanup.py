"""The cleanup of a run in this process, if Prefect does not do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from flows.console import print_failed_deletions, print_message
from tasks.model.cleanup import HOW_TO_REMOVE
from tasks.progress import CLEANUP, Progress

if TYPE_CHECKING:
    from tasks.model.run import Keep


class RunCleanup:
    """The cleanup of the run that `watch` hears of.

    Attributes:
        is_cleaning_up: Whether the cleanup has started.
    """

    def __init__(self) -> None:
        self._flow_run_id = ""
        self.is_cleaning_up = False
        self._remaining: Mapping[str, str] | None = None

    def watch(self, progress: Progress) -> None:
        """Record the id of the flow run, the start of its cleanup and what the cleanup did not delete."""
        self._flow_run_id = progress.flow_run_id or self._flow_run_id
        self.is_cleaning_up = self.is_cleaning_up or progress.step == CLEANUP
        if progress.remaining is not None:
            self._remaining = progress.remaining

    def clean_up_if_needed(self) -> None:
        """Clean up if the run started and its hook did not: Prefect may be gone, or an interrupt may have hit its code."""
        if self._remaining is None:
            self.clean_up()

    def clean_up(self, keep: Keep | None = None) -> None:
        """Clean up if the run started.

        Args:
            keep: What to keep. By default, what the run marked as kept.
        """
        if not self._flow_run_id:
            return
        from tasks.steps.cleanup import clean_up_run  # noqa: PLC0415 - Prefect is imported by now

        self.is_cleaning_up = True
        self._remaining = clean_up_run(UUID(self._flow_run_id), keep).remaining

    def print_remaining(self) -> bool:
        """Print what the run left behind, and how to remove it. Return whether that is anything."""
        if self._remaining is None and self._flow_run_id:
            print_message(f"The cleanup did not finish. {HOW_TO_REMOVE}")
            return True
        if not self._remaining:
            return False
        print_failed_deletions(self._remaining)
        print_message(HOW_TO_REMOVE)
        return True
