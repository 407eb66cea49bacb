"""Messages and questions on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from tasks.redaction import redacted
from tasks.text import printable_lines


def terminal_text(text: str, style: str = "") -> Text:
    """Return a text as a terminal shows it: no control characters, and no markup or emoji codes that rich interprets."""
    return Text(printable_lines(text), style)


def print_message(message: str) -> None:
    """Print a message to stderr, with secrets redacted. Results go to stdout."""
    Console(stderr=True, highlight=False).print(terminal_text(redacted(message)), soft_wrap=True)


def print_result(text: str) -> None:
    """Print a line of a result to stdout."""
    Console(highlight=False).print(terminal_text(text), soft_wrap=True)


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
    Console(stderr=True, highlight=False).print(terminal_text(f"{question} [Y/n] "), end="")
    try:
        return read().strip().lower() not in {"n", "no"}
    except EOFError:
        return True
