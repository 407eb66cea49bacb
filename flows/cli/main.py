"""The `topn` command."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from pydantic import ValidationError

from flows.cli.arguments import build_parser
from flows.cli.check import run_check
from flows.cli.exit_status import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from flows.cli.interruption import Interruption
from flows.cli.log import run_log
from flows.cli.plan import run_plan
from flows.cli.run import run_flow
from flows.cli.sweep import run_sweep
from flows.console import print_message
from flows.servers.connect import prepare_environment
from tasks.azure.settings import use_block
from tasks.errors import ConfigurationError, UsageError
from tasks.model.parameters import DEFAULT_BLOCK

PREFECT_SETTINGS_MODULES = {
    "prefect.context",
    "prefect.settings",
    "prefect.settings.context",
    "prefect.settings.profiles",
}

COMMANDS = {"plan": run_plan, "check": run_check, "sweep": run_sweep, "log": run_log}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. The README lists the exit codes."""
    options = build_parser().parse_args(argv)
    with Interruption().handle_signals() as interruption:
        try:
            prepare_environment()
            with use_block(getattr(options, "azure_block", DEFAULT_BLOCK)):
                if options.command == "run":
                    return run_flow(options, interruption)
                return COMMANDS[options.command](options)
        except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - every error is printed without secrets
            # An interrupt inside an import or a library's callback can surface as an error of another type.
            if not interruption.is_requested:
                status = _print_error(error)
                return EXIT_FAILED if interruption.print_remaining() else status
        print_message("Interrupted.")
        if not interruption.print_remaining():
            print_message("Everything that the run created was deleted, except what an option keeps.")
        # CPython re-raises SIGINT at exit, instead of returning this exit code, if an interrupt hit code that was
        # compiled from a string, as in dataclasses. Executing another string resets that flag.
        exec("")  # noqa: S102
        return EXIT_INTERRUPTED


def _print_error(error: BaseException) -> int:
    """Print an error that ended a command, and return the exit code."""
    if isinstance(error, (UsageError, ConfigurationError)):
        print_message(str(error))
        return EXIT_USAGE
    if _is_from_prefect_settings(error):
        print_message(
            f"The settings of Prefect cannot be read: {_summary(error)}. Check the variables that start with PREFECT_, the "
            "file prefect.toml and the Prefect profile."
        )
        return EXIT_USAGE
    # Python itself would print the traceback with secrets and control characters.
    print_message("".join(traceback.format_exception(error)).rstrip())
    return EXIT_FAILED


def _is_from_prefect_settings(error: BaseException) -> bool:
    """Check whether Prefect raised an error while it read its settings, which it does on import."""
    modules = {frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)}
    return isinstance(error, (ValueError, OSError)) and bool(modules & PREFECT_SETTINGS_MODULES)


def _summary(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return ": ".join([*(str(part) for part in problem["loc"]), problem["msg"]])
    return str(error)
