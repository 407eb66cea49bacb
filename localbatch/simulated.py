"""Tasks that only take time: no process, no directory, no resource file, no output file.

With them one process runs thousands of nodes and a hundred thousand tasks. A task says by its environment settings
how long it takes (`LOCALBATCH_SECONDS`) and how it ends (`LOCALBATCH_EXIT_CODE`).
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from localbatch.models import Action, KillRun, Node, Report, StartRun

SECONDS = "LOCALBATCH_SECONDS"
EXIT_CODE = "LOCALBATCH_EXIT_CODE"


class SimulatedRunner:
    """Does for the server what the node agents do, with one thread for all runs, on the service's clock."""

    def __init__(
        self,
        root: Path,
        *,
        now: Callable[[], datetime],
        task_seconds: float,
        report: Callable[[Report], None],
    ) -> None:
        """Begin with no runs.

        Args:
            root: The directory that would hold the roots of nodes; nothing is made there.
            now: The service's clock.
            task_seconds: How long a task takes that does not say so.
            report: Is called from the thread, once for each run that was not killed.
        """
        self._root = root
        self._now = now
        self._task_seconds = task_seconds
        self._report = report
        self._changed = threading.Condition()
        self._runs: dict[int, Report] = {}
        self._ends: list[tuple[datetime, int]] = []
        """A heap; the ends of killed runs stay in it until they are due."""
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="localbatch-simulated", daemon=True)
        self._thread.start()

    def perform(self, actions: Iterable[Action]) -> None:
        """Begin what a tick decided."""
        now = self._now()
        with self._changed:
            for action in actions:
                if isinstance(action, StartRun):
                    ends_at, self._runs[action.run_id] = self._read(action, now)
                    heapq.heappush(self._ends, (ends_at, action.run_id))
                elif isinstance(action, KillRun):
                    self._runs.pop(action.run_id, None)
            self._changed.notify()

    def root_of(self, node: Node) -> Path:
        """Return the root directory that a node would have."""
        return self._root / node.pool_id.lower() / node.id

    def wake(self) -> None:
        """Look at the clock again: it was moved."""
        with self._changed:
            self._changed.notify()

    def stop(self) -> None:
        """Forget every run, and return when the thread has ended."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def _read(self, action: StartRun, now: datetime) -> tuple[datetime, Report]:
        """Return when a run ends, and what will be reported then."""
        settings = action.environment
        try:
            ends_at = now + timedelta(seconds=max(0.0, float(settings.get(SECONDS) or self._task_seconds)))
            return ends_at, Report(run_id=action.run_id, exit_code=int(settings.get(EXIT_CODE) or 0))
        except (ValueError, OverflowError) as error:
            failure = {
                "category": "usererror",
                "code": "CommandLaunchFailed",
                "message": "The specified command could not be launched",
                "details": [{"name": "Message", "value": f"{SECONDS} or {EXIT_CODE} is no number: {error}"}],
            }
            return now, Report(run_id=action.run_id, exit_code=None, failure=failure)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._is_stopping:
                    return
                now = self._now()
                ended = []
                while self._ends and self._ends[0][0] <= now:
                    report = self._runs.pop(heapq.heappop(self._ends)[1], None)
                    if report:
                        ended.append(report)
                if not ended:
                    self._changed.wait((self._ends[0][0] - now).total_seconds() if self._ends else None)
            # Without the lock: whoever hears it may begin the next run at once.
            for report in ended:
                self._report(report)
