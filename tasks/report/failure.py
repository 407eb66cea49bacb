"""The description of a failed file that the terminal, the artifact and the HTML page share."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.verdict import Category, FileError, FileReport
from tasks.text import printable, printable_lines

# What an error of each category means.
MEANINGS = {
    Category.PROGRAM: "The program failed on the node, or its outputs are invalid.",
    Category.INPUT: "The program rejected this file. Fix the file and run again.",
    Category.RESOURCE_FILE: "The node could not download a file that it needs.",
    Category.UPLOAD: "An output is missing, or could not be transferred.",
    Category.NODE: "The node or the service failed.",
    Category.WALL_CLOCK: "The run reached its time limit.",
    Category.PREEMPTED: "The node was preempted.",
    Category.CANCELLED: "The run ended before this file was processed.",
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a file failed, in printable text.

    Attributes:
        name: Name of the file.
        message: The error message, without the name.
        reason: Name and error message in one line.
        meaning: What the category of the error means.
        category: The category of the error.
        facts: Labels and values, such as the exit code and the node.
        logs: Name and last lines of stderr and stdout, each unless it is empty.
        repeat_command: Shell command that repeats the work on this machine, or "".
    """

    name: str
    message: str
    reason: str
    category: str
    meaning: str
    facts: tuple[tuple[str, str], ...]
    logs: tuple[tuple[str, str], ...]
    repeat_command: str


def describe(file: FileReport, error: FileError) -> Failure:
    """Return the description of the error of a failed file."""
    name, text = printable(file.file.name), printable(error.message)
    message = text.removeprefix(name).lstrip()
    facts: list[tuple[str, str]] = []
    if error.exit_code is not None:
        facts.append(("exit code", str(error.exit_code)))
    if error.attempts:
        facts.append(("started", "once" if error.attempts == 1 else f"{error.attempts} times"))
    if error.node_id:
        facts.append(("last on node", printable(error.node_id)))
    logs = (("stderr", error.stderr), ("stdout", error.stdout))
    return Failure(
        name=name,
        message=message,
        reason=f"{name}: {message}" if message == text else f"{name} {message}",
        category=error.category.value,
        meaning=MEANINGS[error.category],
        facts=tuple(facts),
        logs=tuple((log, printable_lines("\n".join(lines.splitlines()))) for log, lines in logs if lines),
        repeat_command=printable(error.repeat_command),
    )
