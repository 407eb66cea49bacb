"""A workload: the command that runs on a node for each input file, and how a run presents its outputs.

The steps use only this interface. For a plain shell command, create a `Workload`. To check or present results in a
special way, write a subclass.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.errors import ConfigurationError
from tasks.model.files import InputFile
from tasks.model.outputs import START_BYTES, Output
from tasks.model.verdict import Category, FileError, StoredResult
from tasks.text import printable

# Name of the input file on the node. With a fixed name, no user-defined file name is part of a command line.
NODE_INPUT = "input"

# The variable with the path of the folder with the files of the workload.
FILES = "FILES"

# Files that the node agent writes. They are uploaded like the outputs.
LOGS = ("stdout.txt", "stderr.txt")

# Prefix of a line on stderr with which a program rejects its input file. The rest of the line is the reason.
INPUT_ERROR = "input error: "

# A cell of the results pages: text, a number, or pairs, such as words and their counts.
Cell = str | int | Sequence[tuple[str, str]]

# Files with a result, and their results.
Results = Sequence[tuple[InputFile, StoredResult]]

# A row of the table that a run writes for other programs.
Row = tuple[str | int | float, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of the results of a run: a title, an SVG document, and a sentence that explains it."""

    title: str
    svg: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Merge:
    """How the partials of all files become the corpus: what is known of all files together.

    A partial is a file that the command of the workload writes besides its outputs. Merging partials in any order and in
    any number of steps must have the same result. Both commands are for /bin/sh. They run in a new folder with the folder
    ``partials``. It contains one or more folders, each with one partial, and some partials can be the same. The variable
    ``FILES`` is the path of the folder with the files of the workload.

    Attributes:
        command: Command that merges the partials into a new one, ``partial`` in the new folder.
        corpus_command: Command that turns the partials into the outputs of the corpus.
        outputs: Names of the outputs of the corpus.
        partial: Name of the file with a partial.
    """

    command: str
    corpus_command: str
    outputs: tuple[str, ...]
    partial: str = "partial"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The work on each input file.

    Raises:
        ConfigurationError: A name is not valid.

    Attributes:
        name: First part of the keys of the run's artifacts. It consists of lower-case letters, digits and dashes.
        command: Command for /bin/sh. It runs in a new folder that contains only the input file, named ``input``. The
            variable ``FILES`` is the path of the folder with ``files``. Exit code 0 means success.
        outputs: Names of files that the command writes in that folder. They are the result.
        files: Contents of the files that are copied to each node, by file name.
        pack_command: Command for /bin/sh that processes all files of a pack at once, also with ``FILES``. It runs in a folder
            with one folder per file, in which it does what `command` does, and finally writes ``.exit`` with the exit code
            and the number of attempts, such as ``0 1``. It skips each folder with that file, and writes ``stderr.txt`` if
            the program rejects the file. The first file that it left unfinished is processed by `command`, the others by
            another run of `pack_command`. If it is empty, `command` processes each file.
        check_command: Command for /bin/sh, also with ``FILES``. A node where it fails runs no Batch tasks.
        done: The word for a file with a new result, as in "5 files: 5 counted".
        merge: How the partials of all files become the corpus; None without a corpus.
        task_minutes: Time limit of each Batch task, unless the run has its own; None for that of the run.
        environment: Environment variables of each Batch task. Results depend on them. Everybody who can read the Batch
            account can read them, so they must not contain secrets.
        required_slots: Number of slots of a node that each Batch task takes. A node with two slots runs one Batch task that
            needs two, or two that need one.
    """

    name: str
    command: str
    outputs: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    pack_command: str = ""
    check_command: str = "true"
    done: str = "done"
    merge: Merge | None = None
    task_minutes: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    required_slots: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9][a-z0-9-]*", self.name):
            raise ConfigurationError(
                f"Workload name {self.name!r} is not valid. Use lower-case letters, digits and dashes."
            )
        merge_names = () if self.merge is None else (self.merge.partial, *self.merge.outputs)
        for name in (*self.files, *self.outputs, *merge_names):
            if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
                raise ConfigurationError(f"File name {name!r} of workload {self.name} is not valid.")
        if not (self.outputs or merge_names) or {NODE_INPUT, *LOGS} & {*self.outputs, *merge_names}:
            raise ConfigurationError(
                f"Workload {self.name} needs outputs with other names than {', '.join((NODE_INPUT, *LOGS))}."
            )
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name.startswith("AZ_BATCH_") or name == FILES:
                raise ConfigurationError(
                    f"Environment variable {name!r} of workload {self.name} is not valid. Use letters, digits and "
                    f"underscores, and neither {FILES} nor AZ_BATCH_…, which the service sets."
                )
        if self.required_slots < 1 or (self.task_minutes is not None and self.task_minutes <= 0):
            raise ConfigurationError(f"Workload {self.name} needs positive numbers as required_slots and task_minutes.")

    def node_input(self, name: str) -> str:
        """Return what the input file with this name is called on the node. It starts with `NODE_INPUT`."""
        del name
        return NODE_INPUT

    @property
    def sha256(self) -> str:
        """Hash of everything that a result depends on, except the input file."""
        return self.hash_of(self.command)

    def hash_of(self, command: str) -> str:
        """Return the hash of everything that a result of a command depends on, except the input file."""
        parts: list[object] = [command, list(self.outputs), sorted(self.file_hashes().items())]
        if self.environment:
            parts.append(sorted(self.environment.items()))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def result_key(self, sha256: str, name: str) -> str:
        """Return the key of the result of a content with this hash, in a file with this name.

        The hash of the address and the ETag of a blob takes the place of that of its content, which is not known.
        """
        return self._key(sha256, self.sha256, name)

    @property
    def partial_sha256(self) -> str:
        """Hash of everything that a partial depends on, except the input file."""
        return self.sha256

    def partial_key(self, sha256: str, name: str) -> str:
        """Return the key of the partial of a content with this hash, in a file with this name."""
        return self._key(sha256, self.partial_sha256, name)

    def _key(self, sha256: str, workload: str, name: str) -> str:
        parts = [sha256, workload]
        if (node_input := self.node_input(name)) != NODE_INPUT:
            parts.append(node_input)  # The command may depend on it.
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def merge_workload(self, *, is_last: bool) -> MergeWorkload:
        """Return the workload of the merges, or of the last one, if there is a merge."""
        if self.merge is None:
            raise ValueError(f"workload {self.name} has no merge")
        command = self.merge.corpus_command if is_last else self.merge.command
        return MergeWorkload(
            name=self.name,
            command=f". ./{NODE_INPUT} && {command}",
            outputs=self.merge.outputs if is_last else (),
            files=self.files,
            done="merged",
            merge=None if is_last else self.merge,
            environment=self.environment,
            required_slots=self.required_slots,
            of=self,
        )

    def file_hashes(self) -> dict[str, str]:
        """Return the hash of each of `files`, by name."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}

    def output_error(self, file: InputFile, outputs: Mapping[str, bytes]) -> FileError | None:
        """Return an error if these outputs are not a valid result of this file, or None."""
        del file, outputs
        return None

    @property
    def keeps_outputs_remote(self) -> bool:
        """Whether large outputs can stay in Storage. A workload that reads all of them anyway returns False."""
        return True

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The part of the name of each output document after ``_OUTPUT``."""
        return tuple(f".{name}" for name in self.outputs)

    def documents(self, file: InputFile, result: StoredResult) -> Mapping[str, bytes | Output]:
        """Return the content of each output document of a file, by its suffix."""
        del file
        return {f".{name}": output for name, output in result.outputs.parts.items()}

    def columns(self, file: InputFile, result: StoredResult) -> dict[str, Cell]:
        """Return the row of a file in the results pages; by default the first line of each output."""
        del file
        return {name: printable(_first_line(output)) for name, output in result.outputs.parts.items()}

    @property
    def table_columns(self) -> Mapping[str, type]:
        """Name and type (str, int or float) of each column of the table for other programs."""
        return dict.fromkeys(("file", *self.outputs), str)

    def rows(self, file: InputFile, result: StoredResult) -> Iterable[Row]:
        """Return the rows of a file in that table; by default one, with the first line of each output."""
        yield (file.name, *(_first_line(result.outputs.parts[name]) for name in self.outputs))

    def figures(self, results: Results) -> list[tuple[str, str]]:
        """Return name and value of the key figures of all results."""
        del results
        return []

    def picture(self, results: Results, corpus: Corpus | None) -> Picture | None:
        """Return a picture of all results, or None."""
        del results, corpus
        return None

    def corpus_error(self, outputs: Mapping[str, bytes]) -> str:
        """Return why these outputs of the last merge are not valid, or ""."""
        del outputs
        return ""

    def corpus_of_file(self, file: InputFile, result: StoredResult) -> Mapping[str, bytes] | None:
        """Return the outputs of the last merge for a corpus of one file; None if it has to be merged, too."""
        del file, result
        return None

    @property
    def corpus_names(self) -> tuple[str, ...]:
        """The names of the documents of the corpus in the output folder."""
        return () if self.merge is None else tuple(f"corpus.{name}" for name in self.merge.outputs)

    def corpus_documents(self, corpus: Corpus) -> Mapping[str, bytes | Output]:
        """Return the content of each document of the corpus, by its name."""
        return {f"corpus.{name}": output for name, output in corpus.result.outputs.parts.items()}

    def corpus_line(self, corpus: Corpus) -> str:
        """Return the corpus in one line; by default the first line of each output."""
        return ", ".join(printable(_first_line(output)) for output in corpus.result.outputs.parts.values())

    def corpus_rows(self, corpus: Corpus) -> list[dict[str, Cell]]:
        """Return the rows of a table about the corpus, all with the same columns."""
        del corpus
        return []

    def repeat_command(self, file: InputFile) -> str:
        """Return the shell command that repeats the work on a file on this machine."""
        needs = f"  # needs {', '.join(self.files)} in the current folder" if self.files else ""
        variables = "".join(f" {name}={shlex.quote(value)}" for name, value in self.environment.items())
        return f"{copy_command(file, self.node_input(file.name))} && export FILES=.{variables} && {self.command}{needs}"


@dataclass(frozen=True, kw_only=True)
class MergeWorkload(Workload):
    """The workload of merges. Its inputs are scripts, which put the partials into folders.

    Attributes:
        of: The workload whose partials are merged.
    """

    of: Workload

    def output_error(self, file: InputFile, outputs: Mapping[str, bytes]) -> FileError | None:
        """Return an error if these outputs are not valid."""
        del file
        error = self.of.corpus_error(outputs) if self.outputs else ""
        return FileError(category=Category.PROGRAM, message=error, exit_code=0) if error else None

    def file_hashes(self) -> dict[str, str]:
        """Return the hash of each file of the other workload."""
        return self.of.file_hashes()

    def repeat_command(self, file: InputFile) -> str:
        """Return "": partials are not on this machine."""
        del file
        return ""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What is known of all files of a run together.

    Attributes:
        result: The outputs of the last merge.
        files: The files in it.
        failed: Names of the files of the run that are not in it.
        previous: The documents of the corpus of the previous run with the same output folder, by name.
    """

    result: StoredResult
    files: tuple[InputFile, ...]
    failed: tuple[str, ...] = ()
    previous: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def file_count(self) -> int:
        """The number of files in it."""
        return len(self.files)


def _first_line(output: Output) -> str:
    return output.read(START_BYTES).decode("utf-8", "replace").partition("\n")[0]


def copy_command(file: InputFile, target: str) -> str:
    """Return the shell command that copies an input file to a path on this machine."""
    if file.etag:
        return f"az storage blob download --auth-mode login --blob-url {shlex.quote(file.path)} --file {target}"
    return f"cp {shlex.quote(file.path)} {target}"
