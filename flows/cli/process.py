"""The `topn` command as a process of its own."""

from __future__ import annotations

import atexit
import os
import sys
from concurrent.futures import Future

from flows.cli.main import main
from flows.console import protected_output

# At exit, Prefect sends its last logs and events. Without a server, it tries that for minutes.
MAX_SENDING_SECONDS = 10.0


def run_process() -> int:
    """Run the command of this process, and return its exit status."""
    with protected_output():
        status = main()
    if not _send_logs_and_events():
        # Python would wait for Prefect without limit.
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no public function for it
        os._exit(status)
    return status


def _send_logs_and_events() -> bool:
    """Send what Prefect has not yet sent, and return whether it did so within seconds."""
    if "prefect" not in sys.modules:
        return True
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - a command without Prefect does not import it
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415 - as above

    unsent: set[Future[bool]] = set()
    for worker in (APILogWorker, EventsWorker):
        drained = worker.drain_all(timeout=MAX_SENDING_SECONDS)
        if isinstance(drained, tuple):
            unsent |= drained[1]
    return not unsent
