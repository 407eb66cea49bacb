"""Messages and questions on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from tasks.redaction import redacted


def print_message(message: str) -> None:
    """Print a message to stderr, with secrets redacted. Results go to stdout."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(redacted(message)))


@contextmanager
def show_starting() -> Iterator[None]:
    """Show a spinner on a terminal until the first progress arrives."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield
        return
    with console.status("starting"):
        yield


def ask(question: str, read: Callable[[], str] = input) -> bool:
    """Return the answer to a yes-or-no question. The default is yes, as in the Azure Batch tutorial."""
    Console(stderr=True, highlight=False).print(f"{escape(question)} \\[Y/n] ", end="")
    try:
        return read().strip().lower() not in {"n", "no"}
    except EOFError:
        return True
