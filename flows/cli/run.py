"""The `topn run` command."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.display import print_failed_json, print_json, print_table, show_progress
from flows.cli.exit_status import EXIT_FAILED
from flows.cli.interruption import Interruption
from flows.cli.options import limit_of, local_files, pool_options_of, workload_of
from flows.console import ask, print_message
from flows.servers.connect import connected_until_exit, prefect_api_url
from tasks.azure.settings import read_settings
from tasks.errors import ConfigurationError, PrefectServerError, TopnError, UsageError
from tasks.model.pool import PoolOptions
from tasks.model.run import Keep
from tasks.model.urls import URL
from tasks.prefect_api import describe_prefect_error, is_from_prefect
from tasks.progress import listen
from tasks.redaction import redact
from tasks.report.manifest import PAGE
from tasks.report.model import FilesFailedError
from tasks.report.output_folder import find_files
from tasks.text import printable

if TYPE_CHECKING:
    from tasks.report.model import RunReport


def run_flow(options: argparse.Namespace, interruption: Interruption) -> int:
    """Run the flow in this process. Start local servers where none are configured.

    Raises:
        UsageError: An input or a folder cannot be used. Nothing was created.
        ConfigurationError: A setting or a server cannot be used. Nothing was created.
    """
    workload = workload_of(options)
    local = local_files(options, workload.corpus_names)
    # Blobs are found once there is an Azure.
    names = [] if local.has_blobs else [file.name for file in find_files(local, workload.suffixes)]
    pool_options = pool_options_of(options)
    limit_of(options, pool_options, read_settings())
    for option, folder in (("output", options.output), ("report", options.report)):
        if folder is not None and not URL.match(folder):
            _require_writable(option, folder)
    with connected_until_exit(on_prefect_exit=interruption.fail):
        from tasks.azure.block import configured_azure  # noqa: PLC0415 - the SDKs are imported by now
        from tasks.steps.pool_selection import check_pool_options  # noqa: PLC0415 - as above

        check_pool_options(pool_options, configured_azure())
        if interruption.is_requested:
            # A library's callback swallowed the interrupt.
            raise KeyboardInterrupt
        return _call_flow(options, names, pool_options, interruption)


def _call_flow(
    options: argparse.Namespace, names: Sequence[str], pool_options: PoolOptions, interruption: Interruption
) -> int:
    keep = Keep(containers=options.keep_containers, job=options.keep_job, pool=options.keep_pool)
    with show_progress(), listen(interruption.watch):
        try:
            outcome = _outcome(options, pool_options)
        except KeyboardInterrupt as error:
            if not interruption.failure:
                raise
            outcome = error
        finally:
            # An interrupted run does not ask. What the user could have kept by an answer is deleted.
            interruption.clean_up_if_needed()
            if options.ask and interruption.is_requested:
                interruption.clean_up(keep)
    report = outcome.report if isinstance(outcome, FilesFailedError) else outcome
    if interruption.is_requested and isinstance(report, BaseException):
        # An interrupt inside Prefect's code can surface as an error of another type.
        raise KeyboardInterrupt
    if interruption.failure and isinstance(report, BaseException):
        report = PrefectServerError(f"{interruption.failure} Run again: what was collected is not counted again.")
    status = _print_outcome(report, options, names)
    if options.ask:
        interruption.clean_up(confirm_keep(keep))
    if interruption.print_remaining():
        return status or EXIT_FAILED
    return status


def confirm_keep(keep: Keep) -> Keep:
    """Return what the user keeps, by options or by answers to the tutorial's questions."""
    return replace(keep, job=keep.job or not ask("Delete the job?"), pool=keep.pool or not ask("Delete the pool?"))


def _outcome(options: argparse.Namespace, pool_options: PoolOptions) -> RunReport | BaseException:
    """Call the flow, and return its report or its error."""
    from prefect.exceptions import TerminationSignal  # noqa: PLC0415 - imported by now

    from flows.topn import topn  # noqa: PLC0415 - imported by now

    try:
        final_state: Any = topn(
            inputs=options.inputs,
            num_words=options.num_words,
            output_folder=options.output,
            ignore_case=options.ignore_case,
            corpus=options.corpus,
            table=options.table,
            report_folder=options.report,
            exclude=options.exclude,
            root=options.root,
            encoding=options.encoding,
            max_expanded_mb=options.max_expanded_mb,
            refresh=options.refresh,
            nodes=pool_options.nodes,
            spot_nodes=pool_options.spot_nodes,
            timeout_minutes=options.timeout_minutes,
            max_usd=options.max_usd,
            usd_per_node_hour=options.usd_per_node_hour,
            task_minutes=options.task_minutes,
            files_per_task=options.files_per_task,
            keep_containers=options.keep_containers,
            keep_job=options.keep_job or options.ask,
            keep_pool=options.keep_pool or options.ask,
            azure_block=options.azure_block,
            vm_size=pool_options.vm_size,
            slots_per_node=pool_options.slots_per_node,
            pool_id=pool_options.pool_id,
            pool=pool_options.setup,
            return_state=True,
        )
        outcome: RunReport | BaseException = final_state.result(raise_on_failure=False)
        return outcome
    except TerminationSignal as error:
        # While a flow runs, Prefect's own handler receives SIGTERM.
        raise KeyboardInterrupt from error
    except TopnError:
        # The parameters are too large for the Prefect server.
        raise
    except Exception as error:  # noqa: BLE001 - Prefect itself failed, for example because its server is gone
        return PrefectServerError(describe_prefect_error(error, prefect_api_url())) if is_from_prefect(error) else error


def _print_outcome(outcome: RunReport | BaseException, options: argparse.Namespace, names: Sequence[str]) -> int:
    """Print the report, or why there is none, and return the exit code.

    Raises:
        UsageError: An input cannot be used.
        ConfigurationError: A setting cannot be used.
    """
    if isinstance(outcome, (UsageError, ConfigurationError)):
        raise outcome
    if isinstance(outcome, BaseException):
        message = redact(str(outcome) if isinstance(outcome, TopnError) else f"{type(outcome).__name__}: {outcome}")
        print_message(f"The run failed: {message}")
        if options.json:
            print_failed_json("", names, message)
        return EXIT_FAILED
    if options.json:
        print_json(outcome)
    else:
        print_table(outcome, outcome.output_folder if URL.match(options.output) else options.output)
    if outcome.page:
        page = outcome.page if URL.match(options.report) else os.path.join(options.report, PAGE)
        print_message(f"The report is {printable(page)}")
    return EXIT_FAILED if outcome.is_failed else 0


def _require_writable(option: str, folder: str) -> None:
    """Check that the folder of an option is writable, or that it can be created. Create nothing.

    Raises:
        UsageError: The folder cannot be created or written.
    """
    try:
        path = Path(folder).absolute()
        existing = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
        with tempfile.NamedTemporaryFile(prefix=".topn-", dir=existing):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"Cannot write to the {option} folder `{printable(folder)}` ({reason}). Set another with `--{option}`."
        ) from error
