"""Simulated tasks, which only take time: they have no process, directory or resource files, and optional output files.

One process can simulate thousands of nodes and a hundred thousand tasks. The environment settings of a task set its
duration (`LOCALBATCH_SECONDS`) and its exit code (`LOCALBATCH_EXIT_CODE`).
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

# More uploads at a time would only wait for the storage account, which is on the same machine.
MAX_UPLOAD_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class SimulatedOutput:
    """The content of the output files of simulated tasks. Files with a wildcard in their pattern are left out.

    Attributes:
        text: The content, in which variables such as `$AZ_BATCH_TASK_ID` are expanded.
        storage: Uploads the files.
    """

    text: str
    storage: StorageClient


class SimulatedRunner:
    """Replaces the node agents: one thread ends all runs, by the clock of the service."""

    def __init__(
        self,
        root: Path,
        *,
        now: Callable[[], datetime],
        task_seconds: float,
        report: Callable[[Report], None],
        output: SimulatedOutput | None = None,
    ) -> None:
        """Create a runner without runs.

        Args:
            root: The folder of the node roots. Nothing is created there.
            now: The clock of the service.
            task_seconds: The default duration of a task.
            report: Called from a thread, once for each run that was not killed.
            output: The content of output files; None for no files.
        """
        self._root = root
        self._now = now
        self._task_seconds = task_seconds
        self._report = report
        self._output = output
        # Starts threads only for the first uploads.
        self._uploads = ThreadPoolExecutor(MAX_UPLOAD_THREADS)
        self._changed = threading.Condition()
        self._runs: dict[int, tuple[StartRun, Report]] = {}
        self._ends: list[tuple[datetime, int]] = []
        """A heap. The ends of killed runs stay in it until they are due."""
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="localbatch-simulated", daemon=True)
        self._thread.start()

    def perform(self, actions: Iterable[Action]) -> None:
        """Start and kill runs."""
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
        """Return the root folder of a node, which does not exist."""
        return self._root / node.pool_id.lower() / node.id

    def wake(self) -> None:
        """Read the clock again, because it was moved."""
        with self._changed:
            self._changed.notify()

    def stop(self) -> None:
        """Drop every run, and return when the threads have ended."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()
        self._uploads.shutdown(cancel_futures=True)

    def _read(self, action: StartRun, now: datetime) -> tuple[datetime, Report]:
        """Return when a run ends, and its report."""
        settings = action.environment
        try:
            ends_at = now + timedelta(seconds=max(0.0, float(settings.get(SECONDS) or self._task_seconds)))
            return ends_at, Report(run_id=action.run_id, exit_code=int(settings.get(EXIT_CODE) or 0))
        except (ValueError, OverflowError) as error:
            failure = {
                "category": "usererror",
                "code": "CommandLaunchFailed",
                "message": "The specified command could not be launched",
                "details": [{"name": "Message", "value": f"{SECONDS} or {EXIT_CODE} is not a number: {error}"}],
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
            # Without the lock, because the callee may start the next run at once.
            for action, report in ended:
                if self._output:
                    self._uploads.submit(self._upload, self._output, action, report)
                else:
                    self._report(report)

    def _upload(self, output: SimulatedOutput, action: StartRun, report: Report) -> None:
        files = [file for file in action.output_files if _is_plain_name(file["filePattern"])]
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


def _is_plain_name(pattern: str) -> bool:
    return not set(pattern) & set("/*?[$")
