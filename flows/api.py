"""Runs of a flow from Python code: a script, a coroutine or a notebook."""

from __future__ import annotations

import sys
from threading import RLock
from typing import Any, NoReturn, ParamSpec

from prefect.utilities.callables import get_call_parameters

from flows.cleanup import RunCleanup
from flows.cli.display import print_table, show_progress
from flows.cli.exit_status import EXIT_FAILED, EXIT_USAGE
from flows.console import print_message
from flows.servers.connect import connected
from flows.topn import WorkloadFlow
from tasks.azure.block import block_of_run
from tasks.azure.settings import use_block
from tasks.errors import ConfigurationError, TopnError, UsageError
from tasks.progress import listen
from tasks.report.model import FilesFailedError, RunReport

P = ParamSpec("P")

# The servers of a run are named by the environment of the process, and its progress goes to all listeners.
_one_at_a_time = RLock()


def run(flow: WorkloadFlow[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> RunReport:
    """Run a flow in this process, and return the report of the run. Files that failed are in it, too, and are printed.

    It uses the servers of `topn run`: the configured ones, those of `make up`, or new local ones for this run. Calls from
    several threads run one after the other.

    Args:
        flow: `flows.topn.topn`, or the flow of an own workload.
        args: The parameters of the flow.
        kwargs: More of its parameters.

    Raises:
        UsageError: An input or an output cannot be used. Nothing was created.
        ConfigurationError: A setting or a server cannot be used. Nothing was created.
        ServiceError: A request to a service failed, and retries did not help.
    """
    report, failure, _ = _run(flow, *args, **kwargs)
    for message in (failure, *report.problems.values()):
        if message:
            print_message(message)
    return report


def main(flow: WorkloadFlow[..., Any], /) -> NoReturn:
    """Run a flow with its default parameters as a command: print what `topn run` prints, and exit with its exit status."""
    try:
        with show_progress():
            report, _, is_incomplete = _run(flow)
    except TopnError as error:
        print_message(str(error))
        sys.exit(EXIT_USAGE if isinstance(error, (UsageError, ConfigurationError)) else EXIT_FAILED)
    print_table(report, report.output_folder)
    sys.exit(EXIT_FAILED if report.is_failed or is_incomplete else 0)


def _run(flow: WorkloadFlow[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> tuple[RunReport, str, bool]:
    """Run a flow, and return its report, the reasons of its failures or "", and whether it left something behind."""
    failure = ""
    cleanup = RunCleanup()
    block = block_of_run(flow, get_call_parameters(flow.fn, args, dict(kwargs)))
    with _one_at_a_time, use_block(block), connected():
        try:
            with listen(cleanup.watch):
                report: RunReport = flow(*args, **kwargs)
        except FilesFailedError as error:
            report, failure = error.report, str(error)
        finally:
            # An interrupt may have hit Prefect's code.
            cleanup.clean_up_if_needed()
            remains = cleanup.print_remaining()
    return report, failure, remains
