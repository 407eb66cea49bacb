"""Packs: many small files in one Batch task, each with an ending of its own.

A pack goes to its node as one archive with a folder for each file, and what comes back is one archive with a folder for
each file that was worked on: one request each way, however many files there are.
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
from tasks.model.inputs import is_unreadable, was_changed
from tasks.model.verdict import BatchTaskOutcome, FileError
from tasks.workload.base import NODE_INPUT, Workload

ARCHIVE = "pack.tar"
RESULTS = "results.tar"
RUN_SCRIPT = "run_pack.sh"

COMMAND = f"tar -xf {ARCHIVE} && exec /bin/sh {RUN_SCRIPT}"

# What a folder has that was worked on: the exit status and the number of attempts.
EXIT = ".exit"

# The service's words for a program that failed.
EXIT_CODE_FAILURE = "FailureExitCode"


@contextmanager
def packed(pack: Pack, workload: Workload) -> Iterator[tuple[BinaryIO, dict[str, FileError]]]:
    """Make the archive of a pack, in a temporary file.

    Yields:
        The archive, at its start; and, by content key, why a file is not in it as it was hashed.
    """
    left_out: dict[str, FileError] = {}
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            _add(archive, RUN_SCRIPT, files_of_package("tasks.workload").joinpath(RUN_SCRIPT).read_bytes())
            _add(archive, "command.sh", f"{workload.command}\n".encode())
            _add(archive, "outputs.txt", "\n".join(workload.outputs).encode())
            for input_file in pack.files:
                if (failure := _add_file(archive, input_file)) is not None:
                    left_out[input_file.content_key] = failure
        file.seek(0)
        yield file, left_out


def endings(
    content: bytes, pack: Pack, outcome: BatchTaskOutcome
) -> dict[str, tuple[BatchTaskOutcome, dict[str, bytes]]]:
    """Read what a pack brought back; an archive that ends in the middle gives what is whole.

    Returns:
        How the work on each file ended, as if it had had its own Batch task, and what it left, by content key.
    """
    left: dict[str, dict[str, bytes]] = {}
    # Headers that mean harm make tarfile raise the others.
    with suppress(tarfile.TarError, ArithmeticError, LookupError, ValueError):
        for path, document in _plain_files(content):
            folder, _, name = path.partition("/")
            left.setdefault(folder, {})[name] = document
    found_endings = ((file, left.get(_folder(file), {})) for file in pack.files)
    return {
        file.content_key: (_ending(documents[EXIT], outcome), documents)
        for file, documents in found_endings
        if re.fullmatch(rb"\d{1,9} \d{1,9}\n", documents.get(EXIT, b""))
    }


def _plain_files(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Read the files of an archive that anybody may have made; none is larger than the archive, and no file is written."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            if member.size < 0:
                # What comes after it would be what came before, for ever.
                return
            # A sparse file may be told in few bytes, and fill the memory.
            found = archive.extractfile(member) if member.isfile() and not member.issparse() else None
            if found is not None:
                yield member.name, found.read()


def _ending(written: bytes, outcome: BatchTaskOutcome) -> BatchTaskOutcome:
    status, attempts = (int(number) for number in written.split())
    return replace(
        outcome,
        result="failure" if status else "success",
        exit_code=status,
        failure_code=EXIT_CODE_FAILURE if status else None,
        retry_count=attempts - 1,
    )


def _folder(file: InputFile) -> str:
    """Name the folder of a file in the archives: no name of a user's is on a node."""
    return file.content_key[:32]


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _add_file(archive: tarfile.TarFile, file: InputFile) -> FileError | None:
    """Stream a file into an archive; returns why it is not what had been hashed, and the node would work in vain.

    Where one copy of the content is not, the next is added under the same name: who unpacks the archive keeps the last.
    """
    failure = was_changed(file)
    for path in (file.path, *file.copies):
        try:
            if _add_content(archive, file, Path(path)):
                return None
        except OSError as error:
            failure = is_unreadable(file, error)
    return failure


def _add_content(archive: tarfile.TarFile, file: InputFile, path: Path) -> bool:
    member = tarfile.TarInfo(f"{_folder(file)}/{NODE_INPUT}")
    member.size = file.size_bytes
    with path.open("rb") as source:
        content = _Padded(source)
        archive.addfile(member, content)
        return not content.was_short and not source.read(1) and content.hash.hexdigest() == file.sha256


class _Padded(io.RawIOBase):
    """A file that hashes what is read, and goes on with zeros where it has become shorter than was announced."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.was_short = False

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.hash.update(content)
        self.was_short = self.was_short or len(content) < size
        return content.ljust(size, b"\0")
