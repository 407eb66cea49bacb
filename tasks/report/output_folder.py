"""The output folder of a run. topn replaces and deletes only files there that its manifest lists."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.azure.settings import results_location, state_folder
from tasks.errors import UsageError
from tasks.files import write_atomically
from tasks.model.inputs import Blobs, FoundFile, LocalFiles, find_inputs, identity, real_folder
from tasks.model.output_names import check_clashes, folded, output_name
from tasks.model.urls import URL
from tasks.model.verdict import FileReport, StoredResult
from tasks.report.manifest import MANIFEST, Entry, Manifest, parse_manifest
from tasks.report.model import RunReport
from tasks.report.table import TABLE, check_table, write_table
from tasks.text import printable
from tasks.workload.base import Workload


def find_files(local: LocalFiles, suffixes: Collection[str], blobs: Blobs | None = None) -> list[FoundFile]:
    """Return the input files of a run, whose outputs clash with nothing.

    Args:
        local: The files that the user named.
        suffixes: The suffixes of the outputs of each file.
        blobs: What finds inputs in Blob Storage.

    Raises:
        UsageError: An input cannot be used, two files clash, or something is in the way of an output.
        ConfigurationError: The table needs a library that is not installed.
    """
    for option, path in (("output folder", local.output_folder), ("table", local.table or "")):
        if URL.match(path):
            raise UsageError(f"The {option} `{printable(path)}` is a URL: set a path on this machine.")
    if local.table is not None:
        check_table(local.table)
    folder = Path(local.output_folder)
    outputs = outputs_in(local)
    files = find_inputs(local, outputs, blobs)
    tables = [os.path.relpath(local.table, folder)] if local.table else []
    check_clashes(files, suffixes, (MANIFEST, TABLE, *tables))
    _check_free(local, outputs, files, suffixes)
    return files


def outputs_in(local: LocalFiles) -> set[str]:
    """Return the identities of all files that the manifest of the output folder lists, and of topn's own folders.

    Raises:
        UsageError: As `read_manifest`.
    """
    folder = Path(local.output_folder)
    real_folder.cache_clear()
    own = {os.path.join(os.path.realpath(path), "") for path in (state_folder(), results_location())}
    return own | {identity(str(folder / path)) for path in read_manifest(folder).paths}


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder; an empty one if there is none.

    Raises:
        UsageError: The folder is a file or below one, or its manifest cannot be read or is not one of topn.
    """
    path = folder / MANIFEST
    try:
        return parse_manifest(path.read_bytes())
    except FileNotFoundError:
        return Manifest()
    except NotADirectoryError:
        raise UsageError(
            f"The output folder `{printable(str(folder))}` is a file, or below one: set another folder."
        ) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror or "") if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"`{printable(str(path))}` is not a manifest of topn ({printable(reason)}). Move it, or set another output folder."
        ) from error


def write_outputs(
    report: RunReport,
    run: Mapping[str, Any],
    log_unexpected: Callable[[BaseException], object],
    table: str | None = None,
) -> tuple[Manifest, list[str]]:
    """Write the outputs of all files with a result, the table and the manifest; delete older outputs of failed files.

    The manifest lists the new outputs before the first is written, so that it is true even if the process is killed.
    Another run that writes to the folder waits. What cannot be written does not stop the rest.

    Args:
        report: The report of the run.
        run: What the manifest says about the run, with its id.
        log_unexpected: Called with each error that is neither of the file system nor expected.
        table: Another file for the table; its suffix selects the format.

    Returns:
        The part of the manifest that is about this run, and what could not be written or deleted, and why.
    """
    folder = Path(report.output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        writer = _Writer(folder, report, log_unexpected)
        before = read_manifest(folder)
        entries = [_entry(file, report.workload, str(run["id"])) for file in report.files]
        kept, outdated = _merge(before.entries, entries)
        tables = [folder / TABLE, *([Path(table)] if table else [])]
        documents = {*before.documents, *(os.path.relpath(path, folder) for path in tables)}
        manifest = Manifest(
            run=run, status="running", documents=(*sorted(documents), *outdated), entries=(*entries, *kept)
        )
        writer.write(MANIFEST, manifest.blocks)
        documents |= {path for path in outdated if not writer.delete(path)}
        written = [writer.write_file(entry, file) for entry, file in zip(entries, report.files, strict=True)]
        for path in tables:
            writer.attempt(str(path), lambda path=path: write_table(path, report))  # type: ignore[misc]
        status = "failed" if report.failed or writer.errors else "completed"
        manifest = replace(manifest, status=status, documents=tuple(sorted(documents)), entries=(*written, *kept))
        writer.write(MANIFEST, manifest.blocks)
    return replace(manifest, entries=tuple(written)), writer.errors


def add_document(folder: Path, path: Path) -> None:
    """Add a file to the manifest of a folder, so that it does not become an input."""
    with _locked(folder):
        manifest = read_manifest(folder)
        documents = {*manifest.documents, os.path.relpath(path, folder)}
        write_atomically(folder / MANIFEST, replace(manifest, documents=tuple(sorted(documents))).blocks())


def _check_free(
    local: LocalFiles, listed: Collection[str], files: Sequence[FoundFile], suffixes: Collection[str]
) -> None:
    """Check that a run replaces nothing but outputs of topn, and none of its inputs.

    Raises:
        UsageError: A file of the user is where an output belongs.
    """
    folder = Path(local.output_folder)
    replaceable = set(listed) - {identity(file.path) for file in files}
    outputs = [output_name(file.name) + suffix for file in files for suffix in suffixes]
    documents = [folder / MANIFEST, folder / TABLE, *([Path(local.table)] if local.table else [])]
    for path in (*documents, *(folder / output for output in outputs)):
        if os.path.lexists(path) and (identity(str(path)) not in replaceable or path.is_dir()):
            raise _in_the_way(path, "topn did not write it")
    for parent in {folder / each for output in outputs for each in PurePosixPath(output).parents}:
        if os.path.lexists(parent) and not parent.is_dir():
            raise _in_the_way(parent, "it is not a folder")


def _in_the_way(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"`{printable(str(path))}` is in the way, because {reason}. Move it, or set another output folder."
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which the kernel releases when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no locks.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _entry(file: FileReport, workload: Workload, run_id: str) -> Entry:
    """Return the entry of a file before its outputs are written."""
    outputs = [file.file.output + suffix for suffix in workload.suffixes] if file.result else []
    return Entry(
        name=file.file.name,
        workload=workload.name,
        path=file.file.path,
        etag=file.file.etag,
        sha256=file.file.sha256,
        bytes=file.file.size_bytes,
        status="running" if file.result else file.status,
        error=file.error.message if file.error else None,
        outputs=tuple(outputs),
        run=run_id,
    )


def _merge(before: Sequence[Entry], entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the earlier entries that stay, and the outputs of the others that are not written again."""
    files = {(entry.workload, entry.name) for entry in entries}
    outputs = {output for entry in entries for output in entry.outputs}
    paths = {folded(output) for output in outputs}
    kept: list[Entry] = []
    outdated: list[str] = []
    for entry in before:
        if (entry.workload, entry.name) in files or any(folded(output) in paths for output in entry.outputs):
            outdated += [output for output in entry.outputs if output not in outputs]
        else:
            kept.append(entry)
    return kept, outdated


class _Writer:
    """Writes and deletes files in the output folder, and collects what failed."""

    def __init__(self, folder: Path, report: RunReport, log_unexpected: Callable[[BaseException], object]) -> None:
        self.errors: list[str] = []
        self._log_unexpected = log_unexpected
        self._folder = folder
        self._report = report

    def write(self, path: str, content: Callable[[], Iterable[bytes]]) -> bool:
        """Write a file; return whether that succeeded."""
        return self.attempt(path, lambda: write_atomically(self._real(path), content()))

    def delete(self, path: str) -> bool:
        """Delete a file, if it exists; return whether that succeeded."""
        return self.attempt(path, lambda: self._unlink(path))

    def write_file(self, entry: Entry, file: FileReport) -> Entry:
        """Write the outputs of a file, and return its final entry. A file that fails has no outputs."""
        result = file.result
        if result is None:
            return entry
        before = len(self.errors)
        self.attempt(file.file.output, lambda: self._write_documents(file, result))
        if len(self.errors) == before:
            return replace(entry, status=file.status)
        for output in entry.outputs:
            with suppress(OSError):
                self._unlink(output)
        remaining = tuple(output for output in entry.outputs if os.path.lexists(self._folder / output))
        return replace(entry, status="failed", error=self.errors[before], outputs=remaining)

    def attempt(self, path: str, action: Callable[[], object]) -> bool:
        """Call a function that writes to a path; collect its error, and return whether there was none."""
        try:
            action()
        except OSError as error:
            self.errors.append(f"{printable(path)} ({error.strerror or error})")
        except Exception as error:  # noqa: BLE001 - a workload that fails on one file must not keep back the others
            self._log_unexpected(error)
            self.errors.append(f"{printable(path)} (unexpected {type(error).__name__}, see the log of the run)")
        else:
            return True
        return False

    def _write_documents(self, file: FileReport, result: StoredResult) -> None:
        workload = self._report.workload
        documents = workload.documents(file.file, result)
        if set(documents) != set(workload.suffixes):
            raise ValueError(f"documents of workload {workload.name} are not {workload.suffixes}")
        for suffix, content in documents.items():
            write_atomically(
                self._real(file.file.output + suffix), content if isinstance(content, bytes) else content.blocks()
            )

    def _unlink(self, path: str) -> None:
        self._real(path).unlink(missing_ok=True)

    def _real(self, path: str) -> Path:
        """Return the path of an output without links to folders; raise an error if it is outside the output folder."""
        folder = Path(os.path.realpath((self._folder / path).parent))
        if not folder.is_relative_to(os.path.realpath(self._folder)):
            raise OSError(errno.ELOOP, "a link points outside the output folder")
        return folder / Path(path).name
