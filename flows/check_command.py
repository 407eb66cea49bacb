"""`topn check`: whether the Azure that a run would use can be used."""

from __future__ import annotations

from datetime import datetime, timezone

from flows.connect import azure_connected
from flows.display import say
from tasks.models import PoolOptions
from tasks.pool_setup import DEFAULT_SETUP, read_pool_setup


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
        from tasks.accounts import batch_account, blob_account  # noqa: PLC0415 - brings the SDKs: slow
        from tasks.azure_block import configured_azure  # noqa: PLC0415 - brings Prefect: slow
        from tasks.check import Status, check  # noqa: PLC0415 - as above

        settings = configured_azure()
        failed = 0
        for finding in check(batch_account(), blob_account(), settings, pool_options, datetime.now(timezone.utc)):
            print(f"{finding.status.value + ':':<7} {finding.sentence}", flush=True)
            failed += finding.status is Status.FAILED
    say(f"{failed} failed; nothing was created." if failed else "A run can begin; nothing was created.")
    return failed
