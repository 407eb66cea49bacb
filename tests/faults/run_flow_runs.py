"""Runs flow runs that exist on the server, as a worker's process does, and may kill itself at a named point.

    run_flow_runs.py

takes their ids from its input, one after the other, and writes a line with the id after each.

    run_flow_runs.py FLOW_RUN_ID [MODULE FUNCTION begin|CALLEE|end]

runs one. The process gets SIGKILL when the function begins, when a function that it has called has returned for the first time
(its middle), or when it ends, whichever thread that happens in.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from uuid import UUID


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(module: str, function: str, when: str) -> None:
    """Kill this process at a point in a function: it is looked for by its code, so that nothing is replaced."""
    owner = importlib.import_module(module)
    for part in function.split("."):
        owner = getattr(owner, part)
    owner = getattr(owner, "fn", owner)
    code = owner.__code__

    def at_call(frame, event, argument):
        """Python calls this when any function begins, and what it returns for each event of that one."""
        here = frame.f_code
        if here is code:
            if when == "begin":
                die()
            return at_return if when == "end" else None
        return at_return if here.co_name == when and _is_below(frame.f_back, code) else None

    def at_return(frame, event, argument):
        frame.f_trace_lines = False
        if event == "return":
            die()
        return at_return

    threading.settrace(at_call)
    sys.settrace(at_call)


def _is_below(frame, code) -> bool:
    """Whether a frame belongs to a function, or to a with statement or a generator that it has open."""
    for _ in range(4):
        if frame is None:
            return False
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


def run(flow_run_id: str) -> None:
    from prefect import get_client  # noqa: PLC0415 - after the environment is read
    from prefect.flow_engine import run_flow  # noqa: PLC0415

    from flows.topn import topn  # noqa: PLC0415

    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(UUID(flow_run_id))
    run_flow(topn, flow_run=flow_run, parameters=flow_run.parameters, return_type="state")


if len(sys.argv) == 1:
    for line in sys.stdin:
        run(line.strip())
        print(line.strip(), flush=True)
else:
    if len(sys.argv) > 2:
        die_at(*sys.argv[2:5])
    run(sys.argv[1])
