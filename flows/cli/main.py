"""The `topn` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flows.cli.arguments import build_parser
from flows.cli.check import run_check
from flows.cli.exit_status import EXIT_INTERRUPTED, EXIT_USAGE
from flows.cli.interruption import Interruption
from flows.cli.plan import run_plan
from flows.cli.run import run_flow
from flows.cli.sweep import run_sweep
from flows.console import say
from tasks.errors import ConfigurationError, UsageError

COMMANDS = {"run": run_flow, "plan": run_plan, "check": run_check, "sweep": run_sweep}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, as listed in the README."""
    options = build_parser().parse_args(argv)
    interruption = Interruption()
    try:
        with interruption.handled():
            return COMMANDS[options.command](options, interruption)
    except (UsageError, ConfigurationError) as error:
        say(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt:
        say("Interrupted. Everything that the run created was deleted.")
        # If an interrupt hits code that was compiled from a string (dataclasses do that), CPython would end the process
        # with the signal instead of this exit code. Executing another string resets that.
        exec("")  # noqa: S102
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
