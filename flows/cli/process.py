"""The `topn` command as a process of its own."""

from __future__ import annotations

from flows.cli.main import main
from flows.console import protected_output


def run_process() -> int:
    """Run the command of this process, and return its exit status."""
    with protected_output():
        return main()
