"""The `topn check` command: whether a run could use the configured Azure."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from flows.cli.exit_status import EXIT_USAGE
from flows.cli.interruption import Interruption
from flows.console import say
from flows.servers.connect import azure_connected
from tasks.model.pool import DEFAULT_SETUP, PoolOptions, read_pool_setup


def run_check(options: argparse.Namespace, interruption: Interruption) -> int:
    """Print whether a run could use the configured Azure, and create nothing.

    Raises:
        ConfigurationError: A setting or a Prefect server cannot be used.
    """
    del interruption
    return EXIT_USAGE if print_findings(read_pool_options(options.pool_id, options.pool)) else 0


def read_pool_options(pool_id: str | None, file: str | None) -> PoolOptions:
    """Make the options of a pool from what the command line says of it.

    Raises:
        ConfigurationError: The file cannot be used.
    """
    return PoolOptions(pool_id=pool_id, setup=DEFAULT_SETUP if file is None else read_pool_setup(file))


def print_findings(pool_options: PoolOptions) -> int:
    """Print what is found, one line each; returns how many failed. Nothing is created.

    Raises:
        ConfigurationError: A setting or a Prefect server cannot be used, or the options contradict each other.
    """
    with azure_connected():
        from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - brings the SDKs: slow
        from tasks.azure.block import configured_azure  # noqa: PLC0415 - brings Prefect: slow
        from tasks.steps.check import Status, check  # noqa: PLC0415 - as above

        settings = configured_azure()
        failed = 0
        for finding in check(batch_account(), blob_account(), settings, pool_options, datetime.now(timezone.utc)):
            print(f"{finding.status.value + ':':<7} {finding.sentence}", flush=True)
            failed += finding.status is Status.FAILED
    say(f"{failed} failed; nothing was created." if failed else "A run can begin; nothing was created.")
    return failed
