"""Packs: many small files in one Batch task, each with its own outcome.

A pack is uploaded as one archive with one folder per file. The node uploads one archive with one folder per processed
file. Each direction takes one request, whatever the number of files.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.resources import files as files_of_package
from pathlib import Path
from typing import BinaryIO

from tasks.model.chunks import Pack
from tasks.model.files import InputFile
from tasks.model.inputs import changed_error, unreadable_error
from tasks.model.verdict import BatchTaskOutcome, FileError
from tasks.workload.base import NODE_INPUT, Workload

ARCHIVE = "pack.tar"
RESULTS = "results.tar"
RUN_SCRIPT = "run_pack.sh"

COMMAND = f"tar -xf {ARCHIVE} && exec /bin/sh {RUN_SCRIPT}"

# File in the folder of each processed file, with the exit code and the number of attempts.
EXIT = ".exit"

# Error code that Batch reports for a program that failed.
EXIT_CODE_FAILURE = "FailureExitCode"


@contextmanager
def packed(pack: Pack, workload: Workload) -> Iterator[tuple[BinaryIO, dict[str, FileError]]]:
    """Create the archive of a pack in a temporary file.

    Yields:
        The archive, positioned at its start, and the errors of files that could not be added, by content key.
    """
    errors: dict[str, FileError] = {}
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            _add(archive, RUN_SCRIPT, files_of_package("tasks.workload").joinpath(RUN_SCRIPT).read_bytes())
            _add(archive, "command.sh", f"{workload.command}\n".encode())
            _add(archive, "outputs.txt", "\n".join(workload.outputs).encode())
            for input_file in pack.files:
                if (error := _add_file(archive, input_file)) is not None:
                    errors[input_file.content_key] = error
        file.seek(0)
        yield file, errors


def file_outcomes(
    content: bytes, pack: Pack, outcome: BatchTaskOutcome
) -> dict[str, tuple[BatchTaskOutcome, dict[str, bytes]]]:
    """Read the results archive of a pack; of a truncated archive, read the complete files.

    Returns:
        Outcome and outputs of each processed file, by content key. An outcome looks like that of a separate Batch task.
    """
    folders: dict[str, dict[str, bytes]] = {}
    # A malicious header makes tarfile raise errors other than `TarError`.
    with suppress(tarfile.TarError, ArithmeticError, LookupError, ValueError):
        for path, document in _plain_files(content):
            folder, _, name = path.partition("/")
            folders.setdefault(folder, {})[name] = document
    outputs = ((file, folders.get(_folder(file), {})) for file in pack.files)
    return {
        file.content_key: (_file_outcome(documents[EXIT], outcome), documents)
        for file, documents in outputs
        if re.fullmatch(rb"\d{1,9} \d{1,9}\n", documents.get(EXIT, b""))
    }


def _plain_files(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Read the regular files of an untrusted archive, without extracting them to disk."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            if member.size < 0:
                # With a negative size, tarfile would read the same members again and again.
                return
            # A sparse file of a few bytes can expand until memory is full.
            source = archive.extractfile(member) if member.isfile() and not member.issparse() else None
            if source is not None:
                yield member.name, source.read()


def _file_outcome(exit_file: bytes, outcome: BatchTaskOutcome) -> BatchTaskOutcome:
    exit_code, attempts = (int(number) for number in exit_file.split())
    return replace(
        outcome,
        result="failure" if exit_code else "success",
        exit_code=exit_code,
        failure_code=EXIT_CODE_FAILURE if exit_code else None,
        retry_count=attempts - 1,
    )


def _folder(file: InputFile) -> str:
    """Return the folder of a file in the archives, which contains no user-defined name."""
    return file.content_key[:32]


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _add_file(archive: tarfile.TarFile, file: InputFile) -> FileError | None:
    """Stream a file into an archive; return an error if its content is not the content that was hashed.

    If one copy has changed, add the next copy under the same name. On the node, `tar` keeps the last one.
    """
    failure = changed_error(file)
    for path in (file.path, *file.copies):
        try:
            if _add_content(archive, file, Path(path)):
                return None
        except OSError as error:
            failure = unreadable_error(file, error)
    return failure


def _add_content(archive: tarfile.TarFile, file: InputFile, path: Path) -> bool:
    member = tarfile.TarInfo(f"{_folder(file)}/{NODE_INPUT}")
    member.size = file.size_bytes
    with path.open("rb") as source:
        content = _PaddedReader(source)
        archive.addfile(member, content)
        return not content.was_short and not source.read(1) and content.hash.hexdigest() == file.sha256


class _PaddedReader(io.RawIOBase):
    """A reader that hashes a file, and pads it with zeros if the file has become shorter than its header states."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.was_short = False

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.hash.update(content)
        self.was_short = self.was_short or len(content) < size
        return content.ljust(size, b"\0")
