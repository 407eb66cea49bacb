"""Runs a flow run that exists on the server, as a worker's process does, and may kill itself in the middle of a step.

    run_flow_run.py FLOW_RUN_ID [MODULE FUNCTION CALLEE]

The process gets SIGKILL when CALLEE returns that FUNCTION has called, whichever thread that happens in.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from uuid import UUID


def die_in(module: str, function: str, callee: str) -> None:
    """Kill this process in the middle of a function: it is found by its code, so that nothing is replaced."""
    owner = importlib.import_module(module)
    for part in function.split("."):
        owner = getattr(owner, part)
    owner = getattr(owner, "fn", owner)
    code = owner.__code__

    def at_call(frame, event, argument):
        """Python calls this when any function begins, and what it returns for each event of that one."""
        return at_return if frame.f_code.co_name == callee and _is_below(frame.f_back, code) else None

    def at_return(frame, event, argument):
        frame.f_trace_lines = False
        if event == "return":
            os.kill(os.getpid(), signal.SIGKILL)
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


if len(sys.argv) > 2:
    die_in(*sys.argv[2:5])
run(sys.argv[1])
