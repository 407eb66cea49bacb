"""Tasks that only take time: no process, no directory, no resource file, and output files only where they are wanted.

With them one process runs thousands of nodes and a hundred thousand tasks. A task says by its environment settings
how long it takes (`LOCALBATCH_SECONDS`) and how it ends (`LOCALBATCH_EXIT_CODE`).
"""

from __future__ import annotations

import heapq
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from localbatch.account.records import Action, KillRun, Node, Report, StartRun
from localbatch.nodes.transfer import StorageClient, TransferError, expand_variables, send_output_files

SECONDS = "LOCALBATCH_SECONDS"
EXIT_CODE = "LOCALBATCH_EXIT_CODE"

UPLOAD_THREADS = 4
"""As many uploads at a time: more would only wait for the storage account of the same machine."""


@dataclass(frozen=True, kw_only=True)
class SimulatedOutput:
    """What every simulated task leaves in each output file that is named without a wildcard.

    Attributes:
        text: The content; `$AZ_BATCH_TASK_ID` and other variables of the task stand for their values.
        storage: Takes the files to where they belong.
    """

    text: str
    storage: StorageClient


class SimulatedRunner:
    """Does for the server what the node agents do, with one thread for all runs, on the service's clock."""

    def __init__(
        self,
        root: Path,
        *,
        now: Callable[[], datetime],
        task_seconds: float,
        report: Callable[[Report], None],
        output: SimulatedOutput | None = None,
    ) -> None:
        """Begin with no runs.

        Args:
            root: The directory that would hold the roots of nodes; nothing is made there.
            now: The service's clock.
            task_seconds: How long a task takes that does not say so.
            report: Is called from a thread, once for each run that was not killed.
            output: What successful tasks upload; None for nothing.
        """
        self._root = root
        self._now = now
        self._task_seconds = task_seconds
        self._report = report
        self._output = output
        # It has no thread before there is something to upload.
        self._uploads = ThreadPoolExecutor(UPLOAD_THREADS)
        self._changed = threading.Condition()
        self._runs: dict[int, tuple[StartRun, Report]] = {}
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
                    ends_at, report = self._read(action, now)
                    self._runs[action.run_id] = action, report
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
        self._uploads.shutdown(cancel_futures=True)

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
                    run = self._runs.pop(heapq.heappop(self._ends)[1], None)
                    if run:
                        ended.append(run)
                if not ended:
                    self._changed.wait((self._ends[0][0] - now).total_seconds() if self._ends else None)
            # Without the lock: whoever hears it may begin the next run at once.
            for action, report in ended:
                if self._output:
                    self._uploads.submit(self._upload, self._output, action, report)
                else:
                    self._report(report)

    def _upload(self, output: SimulatedOutput, action: StartRun, report: Report) -> None:
        files = [file for file in action.output_files if _is_a_name(file["filePattern"])]
        with tempfile.TemporaryDirectory(prefix="localbatch-") as folder:
            directory = Path(folder) / "wd"
            directory.mkdir()
            for file in files:
                (directory / file["filePattern"]).write_text(expand_variables(output.text, action.environment))
            try:
                send_output_files(output.storage, files, directory, action.environment, succeeded=report.exit_code == 0)
            except TransferError as error:
                report = replace(report, failure=error.failure)
        self._report(report)


def _is_a_name(pattern: str) -> bool:
    return not set(pattern) & set("/*?[$")
