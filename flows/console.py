"""Sentences and questions for a person at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from tasks.redaction import redacted


def say(sentence: str) -> None:
    """Tell people something, on stderr; stdout is for results."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(redacted(sentence)))


def print_failed_deletions(failures: Mapping[str, str]) -> None:
    """Print what could not be deleted, with the reasons, on stderr."""
    for name, reason in failures.items():
        say(f"Could not delete {name}: {reason}")


@contextmanager
def show_starting() -> Iterator[None]:
    """Show on a terminal that something is under way, before there is any progress to show."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield
        return
    with console.status("starting"):
        yield


def ask(question: str, read: Callable[[], str] = input) -> bool:
    """Ask a yes-or-no question as the tutorial does; no answer means yes."""
    Console(stderr=True, highlight=False).print(f"{escape(question)} \\[Y/n] ", end="")
    try:
        return read().strip().lower() not in {"n", "no"}
    except EOFError:
        return True
