"""The `topn sweep` command: delete what dead runs left behind."""

from __future__ import annotations

import argparse

from flows.cli.exit_status import EXIT_FAILED
from flows.console import print_failed_deletions, print_message, print_result
from flows.servers.connect import prefect_api_url, use_make_up_servers
from tasks.azure.settings import load_settings, state_folder
from tasks.errors import UsageError


def run_sweep(options: argparse.Namespace) -> int:
    """Delete what dead runs left behind in the configured Azure, and print each name.

    Raises:
        UsageError: The options contradict each other.
        ConfigurationError: No Azure is configured.
    """
    if options.partials and not options.older_than:
        raise UsageError("Set `--older-than`, such as 90d, with `--partials`: the next run counts their files again.")
    use_make_up_servers(state_folder())
    if not prefect_api_url():
        load_settings()
    from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - imports the SDKs, which is slow
    from tasks.steps.sweep import sweep, sweep_partials  # noqa: PLC0415 - as above

    if options.partials:
        count = sweep_partials(blob_account(), options.older_than, dry_run=options.dry_run)
        print_result(f"{'found' if options.dry_run else 'deleted'}: {count:,} blobs with partials of the corpus.")
        return 0
    swept = sweep(batch_account(), blob_account(), options.older_than, dry_run=options.dry_run)
    for name in swept.found:
        if name not in swept.remaining:
            print_result(f"{'left behind' if options.dry_run else 'deleted'}: {name}")
    print_failed_deletions(swept.remaining)
    print_message(f"{len(swept.found)} left behind by dead runs.")
    if swept.waiting:
        print_message(
            f"{len(swept.waiting)} more stay until their deadline, because a run of the same files can collect their results."
        )
    return EXIT_FAILED if swept.remaining else 0
