"""Packs: many small files in one Batch task, each with its own outcome.

A pack is uploaded as one archive with one folder per file. Blobs are not in it: the node downloads them into their
folders. The node uploads one archive with one folder per processed file, and one with the partials. Each direction takes
one request per archive, whatever the number of files.
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
from tasks.model.outputs import Output, Partial
from tasks.model.verdict import BatchTaskOutcome, FileError
from tasks.workload.base import NODE_INPUT, Merge, Workload

ARCHIVE = "pack.tar"
RESULTS = "results.tar"
PARTIALS = "partials.tar"
RUN_SCRIPT = "run_pack.sh"

# SHA-256 hash of a blob, as the node read it, and the command that writes it. A second attempt keeps the first hash,
# because the outputs have names like the input.
INPUT_HASH = "topn-sha256.txt"
HASH_COMMAND = f"[ -s {INPUT_HASH} ] || sha256sum {NODE_INPUT}* >{INPUT_HASH} || exit 1; "

# The same for all files of a pack, in one process. The lines of `sha256sum` are hash, two spaces, and path.
HASH_PACK_COMMAND = f"""set --
for folder in */; do
  [ -s "${{folder}}{INPUT_HASH}" ] || set -- "$@" "${{folder}}{NODE_INPUT}"*
done
[ "$#" -eq 0 ] || sha256sum "$@" | while read -r hash path; do
  echo "$hash  ${{path#*/}}" >"${{path%%/*}}/{INPUT_HASH}"
done
"""

COMMAND = f"tar -xf {ARCHIVE} && exec /bin/sh {RUN_SCRIPT}"

# Runs the command for a single file. A program that failed for a transient reason, such as too little memory beside other
# programs, gets another attempt. Batch would also retry a program that rejected its input, so it does not retry at all.
SINGLE_COMMAND = """process() (
{command}
)
process; status=$?
[ $status -eq 0 ] || grep -qs "^input error: " ../stderr.txt || { process; status=$?; }
exit $status"""

# File in the folder of each processed file, with the exit code and the number of attempts.
EXIT = ".exit"
MAX_EXIT_BYTES = 32

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
            _add(archive, "command.sh", f"{command(pack, workload)}\n".encode())
            _add(archive, "pack_command.sh", _pack_command(pack, workload).encode())
            _add(archive, "outputs.txt", f"{' '.join(outputs(pack, workload))}\n".encode())
            _add(archive, "partial.txt", f"{workload.merge.partial if workload.merge else ''}\n".encode())
            for input_file in pack.files:
                if (
                    not input_file.etag
                    and (error := _add_file(archive, input_file, node_path(pack, input_file, workload))) is not None
                ):
                    errors[input_file.content_key] = error
        file.seek(0)
        yield file, errors


def batch_task_command(pack: Pack, workload: Workload) -> str:
    """Return the command of the Batch task of a pack."""
    return COMMAND if pack.is_archive else SINGLE_COMMAND.replace("{command}", command(pack, workload))


def command(pack: Pack, workload: Workload) -> str:
    """Return the command for the files of a pack. It writes the hashes of blobs, which the flow does not read."""
    return (HASH_COMMAND if pack.has_blobs else "") + workload.command


def _pack_command(pack: Pack, workload: Workload) -> str:
    """Return the command for all files of a pack at once, or nothing."""
    if not workload.pack_command:
        return ""
    return f"{HASH_PACK_COMMAND if pack.has_blobs else ''}{workload.pack_command}\n"


def outputs(pack: Pack, workload: Workload) -> tuple[str, ...]:
    """Return the names of what the command writes."""
    return workload.outputs + ((INPUT_HASH,) if pack.has_blobs else ())


def partials_output(pack: Pack, merge: Merge) -> str:
    """Return the name of the file with the partials of a Batch task."""
    return PARTIALS if pack.is_archive else merge.partial


def partial_of(pack: Pack, file: InputFile, blob: str) -> Partial:
    """Return the partial of a file, whose Batch task has left the partials in this blob."""
    return Partial(blob=blob, member=_folder(file) if pack.is_archive else "")


def node_path(pack: Pack, file: InputFile, workload: Workload) -> str:
    """Return the path of an input file in the working directory of its Batch task."""
    name = workload.node_input(file.name)
    return f"{_folder(file)}/{name}" if pack.is_archive else name


def file_outcomes(
    archive: Output, pack: Pack, outcome: BatchTaskOutcome
) -> dict[str, tuple[BatchTaskOutcome, dict[str, Output]]]:
    """Read the results archive of a pack; of a truncated archive, read the complete files.

    Returns:
        Outcome and outputs of each processed file, by content key. An outcome looks like that of a separate Batch task.
    """
    folders: dict[str, dict[str, Output]] = {}
    # A malicious header makes tarfile raise errors other than `TarError`.
    with suppress(tarfile.TarError, ArithmeticError, LookupError, ValueError):
        for path, document in _plain_files(archive):
            folder, _, name = path.partition("/")
            folders.setdefault(folder, {})[name] = document
    outcomes = {}
    for file in pack.files:
        documents = folders.get(_folder(file), {})
        exit_file = documents[EXIT].read(MAX_EXIT_BYTES) if EXIT in documents else b""
        if re.fullmatch(rb"\d{1,9} \d{1,9}\n", exit_file):
            outcomes[file.content_key] = _file_outcome(exit_file, outcome), documents
    return outcomes


def _plain_files(archive: Output) -> Iterator[tuple[str, Output]]:
    """Yield the regular files of an untrusted archive, which are parts of it."""
    with tarfile.open(fileobj=archive.open(), mode="r:") as members:
        for member in members:
            if member.size < 0:
                # With a negative size, tarfile would read the same members again and again.
                return
            # The content of a sparse file is not stored as it is, and can expand until memory is full.
            if member.isfile() and not member.issparse():
                yield member.name, archive.part(member.offset_data, member.size)


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


def _add_file(archive: tarfile.TarFile, file: InputFile, node_path: str) -> FileError | None:
    """Stream a file into an archive; return an error if its content is not the content that was hashed.

    If one copy has changed, add the next copy under the same name. On the node, `tar` keeps the last one.

    Raises:
        OSError: The archive cannot be written.
    """
    failure = changed_error(file)
    for path in (file.path, *file.copies):
        try:
            source = Path(path).open("rb")  # noqa: SIM115 - only opening it may fail here
        except OSError as error:
            failure = unreadable_error(file, error)
            continue
        with source:
            content = _PaddedReader(source)
            member = tarfile.TarInfo(node_path)
            member.size = file.size_bytes
            archive.addfile(member, content)
            if content.error is not None:
                failure = unreadable_error(file, content.error)
            elif not content.was_short and not source.read(1) and content.hash.hexdigest() == file.sha256:
                return None
    return failure


class _PaddedReader(io.RawIOBase):
    """A reader that hashes a file, and pads it with zeros if the file is shorter than its header states.

    A file that can no longer be read is padded, too: an archive with half a file would be invalid.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.was_short = False
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        content = b""
        try:
            content = b"" if self.error else self._file.read(size)
        except OSError as error:
            self.error = error
        self.hash.update(content)
        self.was_short = self.was_short or len(content) < size
        return content.ljust(size, b"\0")
