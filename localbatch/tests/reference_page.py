"""Generates parts of docs/local-batch.md.

`python localbatch/tests/reference_page.py docs/local-batch.md localbatch/tests/transcripts`
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localbatch.account.states import TABLES, Table
from localbatch.api.routes import ROUTES, Route, match_route
from localbatch.errors import CODES
from localbatch.faults.definitions import FAULTS
from localbatch.rules.agenda import PACES

# The error codes that are not those of a response, by the property that has them.
OTHER_CODES: Mapping[str, Sequence[str]] = {
    "a formula that is set, or `autoScaleRun` of a pool": (
        "AutoScalingFormulaEvaluationError",
        "AutoScalingFormulaSyntaxError",
        "AutoScalingFormulaTooLong",
        "InsufficientSampleData",
    ),
    "`resizeErrors` of a pool": (
        "AccountCoreQuotaReached",
        "AccountLowPriorityCoreQuotaReached",
        "AccountVMSeriesCoreQuotaReached",
        "AllocationFailed",
        "AllocationTimedout",
        "RemoveNodesFailed",
        "ResizeStopped",
    ),
    "`errors` of a node": ("NodeUnusable",),
    "`schedulingError` of a job": ("AutoPoolCreationFailedWithQuotaReached", "InvalidAutoScaleFormulaInAutoPool"),
    "`failureInfo` of a task": (
        "BlobAccessDenied",
        "BlobDownloadMiscError",
        "BlobDownloadTimedOut",
        "BlobNotFound",
        "CommandLaunchFailed",
        "CommandProgramNotFound",
        "ContainerTaskSettingsNotFound",
        "FailureExitCode",
        "FileUploadAccessDenied",
        "FileUploadContainerNotFound",
        "FileUploadMiscError",
        "FileUploadTimedOut",
        "ResourceDirectoryCreateFailed",
        "ResourceFileCreateFailed",
        "ResourceFileWriteFailed",
        "TaskEnded",
    ),
    "responses of the fault `answer`": ("RequestTimeout", "ServerBusy", "TooManyRequests"),
}


@dataclass(frozen=True)
class Transcript:
    """A recorded transcript of the service, which a test replays against localbatch.

    Attributes:
        name: The name of its file.
        operations: The operations whose successful responses are compared.
        codes: The error codes that are compared, with the status of the response.
    """

    name: str
    client: str
    api_version: str
    source: str
    responses: int
    operations: frozenset[str]
    codes: frozenset[tuple[int, str]]


def read_transcript(path: Path) -> Transcript:
    """Return what a transcript compares."""
    content = json.loads(path.read_text())
    exchanges = [each for each in content["exchanges"] if "response" in each]
    answered = [(*each["request"].split(" ", 1), each["response"]) for each in exchanges]
    return Transcript(
        path.stem,
        content["client"],
        content["api_version"][:10],
        content["source"],
        len(exchanges),
        frozenset(
            match_route(method, target).route.operation
            for method, target, response in answered
            if response["status"] < 400
        ),
        frozenset((response["status"], code) for _, _, response in answered for code in _codes(response.get("body"))),
    )


def _codes(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and isinstance(value.get("code"), str):
        yield value["code"]
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _codes(each)


class Verification:
    """Says how operations and error codes were verified."""

    def __init__(self, folder: Path) -> None:
        """Read the transcripts in a folder, newest version of the API first."""
        read = (read_transcript(path) for path in sorted(folder.glob("*.json")))
        self.transcripts = sorted(read, key=lambda each: each.api_version, reverse=True)

    def of_operation(self, route: Route) -> str:
        """Return how an operation was verified."""
        if not route.handler:
            return "not served (501)"
        return self._links([each for each in self.transcripts if route.operation in each.operations])

    def of_code(self, code: str, status: int = 0) -> str:
        """Return how an error code was verified; in properties, the status of the response does not matter."""
        return self._links(
            [each for each in self.transcripts if any(code == found and status in {0, at} for at, found in each.codes)]
        )

    def _links(self, transcripts: Sequence[Transcript]) -> str:
        # Three are enough to see for which versions it holds.
        links = [f"[{each.client}, {each.api_version}][{each.name}]" for each in transcripts[:3]]
        return f"compared with {'; '.join(links)}" if links else "from the documents only"


def operations(verification: Verification) -> str:
    """Return the table of operations of the REST API."""
    lines = ["| operation | request | how it was verified |", "|---|---|---|"]
    lines += [f"| {route.operation} | `{_request(route)}` | {verification.of_operation(route)} |" for route in ROUTES]
    return "\n".join(lines)


def transcripts(verification: Verification) -> str:
    """Return the table of transcripts."""
    lines = ["| transcript | client | version of the API | responses |", "|---|---|---|---|"]
    lines += [
        f"| [{each.name}] | {each.client} | {each.api_version} | {each.responses} |"
        for each in verification.transcripts
    ]
    # The tables are readable as text, too, because only the names of the links are in them.
    links = [f"[{each.name}]: {each.source}" for each in verification.transcripts]
    return "\n".join([*lines, "", *links])


def totals(verification: Verification) -> str:
    """Return how many operations and error codes were verified in which way."""
    operations = [verification.of_operation(route) for route in ROUTES]
    others = [code for codes in OTHER_CODES.values() for code in codes]
    codes = [verification.of_code(code, status) for status, code, _ in CODES] + [
        verification.of_code(code) for code in others
    ]
    lines = ["| | compared | from the documents only | not served |", "|---|---|---|---|"]
    for name, found in (("operations", operations), ("error codes", codes)):
        counts = [sum(text.startswith(way) for text in found) for way in ("compared", "from", "not")]
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def _request(route: Route) -> str:
    return f"{route.method} {re.sub('_([a-z])', lambda match: match[1].upper(), route.path)}"


def diagrams(_: Verification) -> str:
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


def paces(_: Verification) -> str:
    """Return the table of the durations of transitional states."""
    names = list(vars(PACES["instant"]))
    lines = [f"| seconds | {' | '.join(PACES)} |", f"|---|{'---|' * len(PACES)}"]
    lines += [f"| {name} | {' | '.join(f'{getattr(pace, name):g}' for pace in PACES.values())} |" for name in names]
    return "\n".join(lines)


def errors(verification: Verification) -> str:
    """Return the table of the error codes of responses."""
    return "\n".join(
        ["| status | code | sentence | how it was verified |", "|---|---|---|---|"]
        + [
            f"| {status} | {code} | {sentence} | {verification.of_code(code, status)} |"
            for status, code, sentence in sorted(CODES)
        ]
    )


def other_errors(verification: Verification) -> str:
    """Return the table of the other error codes."""
    return "\n".join(
        ["| where | code | how it was verified |", "|---|---|---|"]
        + [
            f"| {where} | {code} | {verification.of_code(code)} |"
            for where, codes in OTHER_CODES.items()
            for code in codes
        ]
    )


def faults(_: Verification) -> str:
    """Return the table of faults."""
    return "\n".join(
        ["| fault | what happens |", "|---|---|", *(f"| {name} | {text} |" for name, text in FAULTS.items())]
    )


PARTS = {
    "totals": totals,
    "operations": operations,
    "transcripts": transcripts,
    "diagrams": diagrams,
    "paces": paces,
    "errors": errors,
    "other errors": other_errors,
    "faults": faults,
}


def generate(page: str, folder: Path) -> str:
    """Return a page with new text between its markers.

    Args:
        page: The page.
        folder: The transcripts.

    Raises:
        ValueError: A marker is missing.
    """
    verification = Verification(folder)
    for name, write in PARTS.items():
        begin, end = f"<!-- {name}: generated -->", f"<!-- end of {name} -->"
        start = page.index(begin) + len(begin)
        page = f"{page[:start]}\n{write(verification)}\n{page[page.index(end, start) :]}"
    return page


def main(page: str, folder: str) -> None:
    """Rewrite the generated parts of a page."""
    Path(page).write_text(generate(Path(page).read_text(), Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
