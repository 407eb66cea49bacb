"""Run an existing flow run, as the process of a worker does, and optionally kill the process during a step.

    run_flow_run.py FLOW_RUN_ID [MODULE FUNCTION CALLEE]

The process sends itself SIGKILL when CALLEE, called by FUNCTION, returns in any thread.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from uuid import UUID


def kill_in(module: str, function: str, callee: str) -> None:
    """Kill this process inside a function; tracing finds the function by its code, so nothing is patched."""
    owner = importlib.import_module(module)
    for part in function.split("."):
        owner = getattr(owner, part)
    owner = getattr(owner, "fn", owner)
    code = owner.__code__

    def at_call(frame, event, argument):
        """Trace calls: Python calls this for each new frame, and the returned function for its events."""
        return at_return if frame.f_code.co_name == callee and _is_below(frame.f_back, code) else None

    def at_return(frame, event, argument):
        frame.f_trace_lines = False
        if event == "return":
            os.kill(os.getpid(), signal.SIGKILL)
        return at_return

    threading.settrace(at_call)
    sys.settrace(at_call)


def _is_below(frame, code) -> bool:
    """Check whether a frame runs `code`, or a context manager or generator that `code` has open."""
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


if len(sys.argv) > 2:
    kill_in(*sys.argv[2:5])
run(sys.argv[1])
