"""One description of a failed file, which the terminal, the artifact and the page render."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.verdict import Category, FileError, FileReport
from tasks.text import printable

# Where to look, by category.
MEANINGS = {
    Category.PROGRAM: "The program failed on the node.",
    Category.INPUT: "The program rejected this file. Fix the file and run again.",
    Category.RESOURCE_FILE: "The node could not download what it needs.",
    Category.UPLOAD: "The output did not come back.",
    Category.NODE: "The node or the service failed.",
    Category.WALL_CLOCK: "The time of the run was over.",
    Category.PREEMPTED: "The node was preempted.",
    Category.CANCELLED: "The run ended before this file was processed.",
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a file failed, as printable text.

    Attributes:
        name: Name of the file.
        message: The reason, without the name.
        reason: Name and reason in one line.
        meaning: What the category of the error means.
        facts: Where and how the program ran: labels and values.
        logs: The last lines of stderr and stdout, by name; empty ones are left out.
        repeat_command: What repeats the work on this machine, or "".
    """

    name: str
    message: str
    reason: str
    meaning: str
    facts: tuple[tuple[str, str], ...]
    logs: tuple[tuple[str, str], ...]
    repeat_command: str


def describe(file: FileReport, error: FileError) -> Failure:
    """Describe the failure of a file."""
    name, whole = printable(file.file.name), printable(error.message)
    message = whole.removeprefix(name).lstrip()
    facts = [("category", error.category.value)]
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
        reason=f"{name}: {message}" if message == whole else f"{name} {message}",
        meaning=MEANINGS[error.category],
        facts=tuple(facts),
        logs=tuple((log, "\n".join(map(printable, text.splitlines()))) for log, text in logs if text),
        repeat_command=printable(error.repeat_command),
    )
