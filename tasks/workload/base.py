"""A workload: what runs on a node for each input file, and what is made of its outputs here.

The steps know no more of the work than this. A workload of shell commands is a `Workload`; one that has more to say of
its results is a subclass.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.errors import ConfigurationError
from tasks.model.files import InputFile
from tasks.model.verdict import FileError, StoredResult
from tasks.text import printable

# What a Batch task's file is called on its node, whatever it is called here: no user's name is in a command line.
NODE_INPUT = "input"

# What the node agent itself writes; it comes back, too.
LOGS = ("stdout.txt", "stderr.txt")

# A line of stderr that begins so refuses the input file, and says why: then it is the file that has to be mended.
INPUT_ERROR = "input error: "

# One cell of the tables of results: numbers are aligned; pairs are words with their counts, say.
Cell = str | int | Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a run's results: an SVG document, its title, and a sentence on what it shows."""

    title: str
    svg: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What runs on a node for each input file.

    Raises:
        ConfigurationError: A name is not such as the attributes say.

    Attributes:
        name: What the keys of the run's artifacts begin with: lower-case letters, digits and dashes.
        command: For /bin/sh, in an empty folder of its own with the file, called ``input``. The variable ``FILES``
            names the folder with what is shipped. Exit status 0 means done.
        outputs: Names of the files that it leaves in that folder, which are the result. They are read into memory.
        files: What is shipped to each node, by its plain file name.
        check_command: For /bin/sh, where ``FILES`` is the same; a node on which it fails takes no Batch tasks.
        done: What a file is when that is done, as in "5 files: 5 counted".
    """

    name: str
    command: str
    outputs: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    check_command: str = "true"
    done: str = "done"

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9][a-z0-9-]*", self.name):
            raise ConfigurationError(
                f"The workload's name {self.name!r} is not of lower-case letters, digits and dashes."
            )
        for name in (*self.files, *self.outputs):
            if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
                raise ConfigurationError(f"{name!r} of workload {self.name} is no plain file name.")
        if not self.outputs or {NODE_INPUT, *LOGS} & set(self.outputs):
            raise ConfigurationError(
                f"Workload {self.name} needs outputs, by other names than {', '.join((NODE_INPUT, *LOGS))}."
            )

    @property
    def sha256(self) -> str:
        """Hash of all that a result depends on, besides the input file."""
        parts = [self.command, list(self.outputs), sorted(self.file_hashes().items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def file_hashes(self) -> dict[str, str]:
        """Hash of each file that is shipped, by its name."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}

    def refusal(self, file: InputFile, outputs: Mapping[str, bytes]) -> FileError | None:
        """Say why these outputs are no result of this file; None where they are one."""
        del file, outputs
        return None

    def documents(self, file: InputFile, result: StoredResult) -> dict[str, bytes]:
        """Give what is written below the output folder, by what comes after ``_OUTPUT`` in the file's name."""
        del file
        return {f".{name}": content for name, content in result.outputs.items()}

    def columns(self, result: StoredResult) -> dict[str, Cell]:
        """Give a file's row in the tables of results: the first line of each output, unless a subclass knows more."""
        return {
            name: printable(content[:1000].decode("utf-8", "replace").partition("\n")[0])
            for name, content in result.outputs.items()
        }

    def figures(self, results: Sequence[StoredResult]) -> list[tuple[str, str]]:
        """Give figures of all results together, each with its name."""
        del results
        return []

    def picture(self, results: Sequence[StoredResult]) -> Picture | None:
        """Draw all results together, where there is something to draw."""
        del results
        return None

    def repeat_command(self, file: InputFile) -> str:
        """Give what repeats a file's work on this machine, for a shell."""
        # Where files are shipped, it is for the user to have them in this folder.
        return f"cp {shlex.quote(file.path)} {NODE_INPUT} && FILES=. && {self.command}"
