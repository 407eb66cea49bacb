"""The `topn check` command: check that a run can use the configured Azure."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from flows.cli.exit_status import EXIT_USAGE
from flows.cli.options import pool_options_of
from flows.console import print_json_document, print_message, print_result
from flows.servers.connect import azure_connected
from tasks.model.pool import PoolOptions


def run_check(options: argparse.Namespace) -> int:
    """Print whether a run can use the configured Azure. Create nothing.

    Raises:
        ConfigurationError: A setting is invalid, or the Prefect server does not respond.
    """
    return EXIT_USAGE if print_findings(pool_options_of(options), as_json=options.json) else 0


def print_findings(pool_options: PoolOptions, *, as_json: bool) -> int:
    """Print one line per finding, or one JSON object, and return the number of failed checks. Create nothing.

    Raises:
        ConfigurationError: A setting is invalid, the Prefect server does not respond, or the options conflict.
    """
    with azure_connected():
        from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - imports the SDKs, which is slow
        from tasks.azure.block import configured_azure  # noqa: PLC0415 - imports Prefect, which is slow
        from tasks.steps.check import Status, check  # noqa: PLC0415 - as above

        settings = configured_azure()
        findings = []
        for finding in check(batch_account(), blob_account(), settings, pool_options, datetime.now(timezone.utc)):
            findings.append({"status": finding.status.value, "message": finding.message})
            if not as_json:
                print_result(f"{finding.status.value + ':':<7} {finding.message}")
    failed = sum(finding["status"] == Status.FAILED for finding in findings)
    if as_json:
        print_json_document({"failed": failed, "findings": findings})
    print_message(f"{failed} failed. Nothing was created." if failed else "A run can start. Nothing was created.")
    return failed
