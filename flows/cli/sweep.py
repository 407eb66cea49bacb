"""The `topn sweep` command: delete what dead runs left behind."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from uuid import UUID

from flows.cli.exit_status import EXIT_FAILED
from flows.console import print_failed_deletions, print_message, print_result
from flows.servers.connect import prefect_api_url, require_reachable_prefect, use_make_up_servers
from tasks.azure.settings import load_settings, state_folder
from tasks.errors import ConfigurationError, ServiceError


def run_sweep(options: argparse.Namespace) -> int:
    """Delete what dead runs left behind in the configured Azure, and print each name.

    Raises:
        ConfigurationError: No Azure is configured, or it does not respond.
    """
    use_make_up_servers(state_folder())
    if not prefect_api_url():
        load_settings()
    from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - imports the SDKs, which is slow
    from tasks.azure.block import configured_azure  # noqa: PLC0415 - imports Prefect, which is slow
    from tasks.steps.check import advice  # noqa: PLC0415 - as above
    from tasks.steps.sweep import ended_at_on_own_server  # noqa: PLC0415 - as above
    from tasks.steps.sweep import sweep as sweep_accounts  # noqa: PLC0415 - as above

    if prefect_api_url():
        require_reachable_prefect()
        ended_at = ended_at_on_own_server
    else:
        ended_at = _never_ended
    try:
        by = datetime.now(timezone.utc) - options.older_than
        swept = sweep_accounts(batch_account(), blob_account(), ended_at, by, dry_run=options.dry_run)
    except ServiceError as error:
        raise ConfigurationError(f"{error} {advice(error, configured_azure())}") from error
    for name in swept.leftovers.names:
        if name not in swept.failures:
            print_result(f"{'left behind' if options.dry_run else 'deleted'}: {name}")
    print_failed_deletions(swept.failures)
    print_message(f"{len(swept.leftovers.names)} left behind by dead runs.")
    return EXIT_FAILED if swept.failures else 0


def _never_ended(flow_run_id: UUID, prefect_api: str) -> datetime | None:
    """Return None, because without a Prefect server only the deadline of a run shows that it is dead."""
    del flow_run_id, prefect_api
    return None
