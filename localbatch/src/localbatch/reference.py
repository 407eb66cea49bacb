"""Generates parts of docs/local-batch.md: `python -m localbatch.reference docs/local-batch.md`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from localbatch.account.states import TABLES, Table
from localbatch.api.routes import ROUTES, Route
from localbatch.errors import CODES
from localbatch.faults.definitions import FAULTS
from localbatch.rules.agenda import PACES


def operations() -> str:
    """Return the table of operations of the REST API."""
    lines = ["| operation | request | served |", "|---|---|---|"]
    lines += [f"| {route.operation} | `{_request(route)}` | {'yes' if route.handler else '501'} |" for route in ROUTES]
    return "\n".join(lines)


def _request(route: Route) -> str:
    return f"{route.method} {re.sub('_([a-z])', lambda match: match[1].upper(), route.path)}"


def diagrams() -> str:
    """Return a state diagram for each table of states."""
    return "\n\n".join(f"### {name}\n\n```mermaid\n{_diagram(table)}\n```" for name, table in TABLES.items())


def _diagram(table: Table) -> str:
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table))}"]
    for state, events in table.items():
        targets: dict[str, list[str]] = {}
        for event, target in events.items():
            targets.setdefault(target, []).append(event)
        lines += [f"    {state} --> {target}: {', '.join(names)}" for target, names in targets.items()]
    return "\n".join(lines)


def paces() -> str:
    """Return the table of the durations of transitional states."""
    names = list(vars(PACES["instant"]))
    lines = [f"| seconds | {' | '.join(PACES)} |", f"|---|{'---|' * len(PACES)}"]
    lines += [f"| {name} | {' | '.join(f'{getattr(pace, name):g}' for pace in PACES.values())} |" for name in names]
    return "\n".join(lines)


def errors() -> str:
    """Return the table of error codes."""
    return "\n".join(
        ["| status | code | sentence |", "|---|---|---|"]
        + [f"| {status} | {code} | {sentence} |" for status, code, sentence in sorted(CODES)]
    )


def faults() -> str:
    """Return the table of faults."""
    return "\n".join(
        ["| fault | what happens |", "|---|---|", *(f"| {name} | {text} |" for name, text in FAULTS.items())]
    )


PARTS = {"operations": operations, "diagrams": diagrams, "paces": paces, "errors": errors, "faults": faults}


def generate(page: str) -> str:
    """Return a page with new text between its markers.

    Raises:
        ValueError: A marker is missing.
    """
    for name, write in PARTS.items():
        begin, end = f"<!-- {name}: generated -->", f"<!-- end of {name} -->"
        start = page.index(begin) + len(begin)
        page = f"{page[:start]}\n{write()}\n{page[page.index(end, start) :]}"
    return page


def main(page: str) -> None:
    """Rewrite the generated parts of a page."""
    Path(page).write_text(generate(Path(page).read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
