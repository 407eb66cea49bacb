"""The output folder of a run. topn replaces and deletes only files there that its manifest lists."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tasks.azure.settings import results_location, state_folder
from tasks.errors import ServiceError, TopnError, UsageError
from tasks.model.inputs import Blobs, FoundFile, LocalFiles, before_wildcard, find_inputs, identity, real_folder
from tasks.model.output_names import check_clashes, folded, output_name
from tasks.model.outputs import Output
from tasks.model.urls import URL, Place, parse_place
from tasks.model.verdict import FileReport, StoredResult
from tasks.report.folders import BlobFolder, ChangedError, Folder, open_folder, open_parent, parse_container
from tasks.report.manifest import CORPUS, MANIFEST, PAGE, Entry, Manifest, parse_manifest, parse_start
from tasks.report.model import RunReport
from tasks.report.table import TABLE, check_table, write_table
from tasks.text import printable
from tasks.workload.base import Corpus, Workload

if TYPE_CHECKING:
    from tasks.azure.blob import BlobAccount

# Each failed attempt to update a manifest in Blob Storage means that another run has succeeded.
MAX_UPDATES = 50

# Each request that Storage does not answer is retried for minutes.
MAX_UNANSWERED = 3

# A file of the run in any folder.
Document = tuple[Folder, str]

R = TypeVar("R")


def find_files(
    local: LocalFiles, suffixes: Collection[str], blobs: Blobs | None = None, account: BlobAccount | None = None
) -> list[FoundFile]:
    """Return the input files of a run, whose outputs clash with nothing.

    Args:
        local: The files that the user named.
        suffixes: The suffixes of the outputs of each file.
        blobs: What finds inputs in Blob Storage.
        account: The configured storage account. Without it, places of outputs in Blob Storage are not checked.

    Raises:
        UsageError: An input cannot be used, two files clash, or something is in the way of an output.
        ConfigurationError: The table needs a library that is not installed.
    """
    documents = _documents(local, account)
    folder = _opened(local, account)
    if folder is not None:
        _check_outside(local, [(folder, ""), *documents], account)
    outputs = outputs_in(local, account)
    for place, _ in documents:
        if str(place) != str(folder):
            place.check()
    files = find_inputs(local, outputs, blobs)
    references = [folder.reference(*document) for document in documents] if folder else []
    check_clashes(files, suffixes, (MANIFEST, TABLE, *local.corpus_names, *references))
    if folder is not None:
        own = [(folder, name) for name in local.corpus_names]
        _check_free(folder, [*own, *documents], outputs, files, suffixes)
    return files


def documents_before(folder: Folder, run_id: str) -> dict[str, bytes]:
    """Return the documents of the corpus that another run has written to a folder, by name."""
    try:
        manifest = parse_start(folder.read(MANIFEST)[0])
        if manifest is None or manifest.run.get("id") == run_id:
            return {}
        names = [
            path
            for path in manifest.documents
            if PurePosixPath(path).parent == PurePosixPath() and path.startswith(CORPUS)
        ]
        return {name: folder.read(name)[0] for name in names}
    except (OSError, ValueError, TopnError):
        return {}


def outputs_in(local: LocalFiles, account: BlobAccount | None = None) -> set[str]:
    """Return the identities of all files that the manifest of the output folder lists, and of topn's own folders.

    Raises:
        UsageError: As `read_manifest`, or the folder is in Blob Storage and cannot be used.
    """
    if (folder := _opened(local, account)) is not None:
        folder.check()
    real_folder.cache_clear()
    own = {os.path.join(os.path.realpath(path), "") for path in (state_folder(), results_location())}
    return own | {folder.identity_of(path) for path in read_manifest(folder).paths} if folder else own


def _opened(local: LocalFiles, account: BlobAccount | None) -> Folder | None:
    """Return the output folder, unless it is in Blob Storage and there is no account yet."""
    if account is None and URL.match(local.output_folder):
        parse_container("The output folder", local.output_folder)
        return None
    return open_folder(local.output_folder, account)


def _documents(local: LocalFiles, account: BlobAccount | None) -> list[Document]:
    """Return the table and the report, unless they are in Blob Storage and there is no account yet."""
    if local.table is not None:
        check_table(local.table)
    if local.report_folder is not None and URL.match(local.report_folder):
        parse_container("The report folder", local.report_folder)
    page = local.report_folder and os.path.join(local.report_folder, PAGE)
    documents: list[Document] = []
    for name, path in (("The table", local.table), ("The report folder", page)):
        if path and URL.match(path) and account is None:
            parse_container(name, path)
        elif path:
            documents.append(open_parent(path, account, name))
    return documents


def read_manifest(folder: Folder) -> Manifest:
    """Return the manifest of a folder; an empty one if there is none.

    Raises:
        UsageError: The folder is a file or below one, or its manifest cannot be read or is not one of topn.
        ServiceError: Storage does not respond.
    """
    return _read_manifest(folder)[0]


def _read_manifest(folder: Folder) -> tuple[Manifest, str]:
    """Return the manifest of a folder and its version."""
    try:
        content, version = folder.read(MANIFEST)
        return parse_manifest(content), version
    except FileNotFoundError:
        return Manifest(), ""
    except NotADirectoryError:
        raise UsageError(
            f"The output folder `{printable(folder.shown(''))}` is a file, or below one: set another folder."
        ) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror or "") if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"`{printable(folder.shown(MANIFEST))}` is not a manifest of topn ({printable(reason)}). Move it, or set another "
            "output folder."
        ) from error


class Written(NamedTuple):
    """What `write_outputs` did.

    Attributes:
        manifest: The part of the manifest that is about this run.
        errors: What could not be written or deleted, and why.
        before: The manifest of the folder before this run.
    """

    manifest: Manifest
    errors: list[str]
    before: Manifest


def write_outputs(
    report: RunReport,
    run: Mapping[str, Any],
    log_unexpected: Callable[[BaseException], object],
    table: str | None = None,
    page: Document | None = None,
) -> Written:
    """Write the outputs of all files with a result, the table and the manifest; delete older outputs of failed files.

    The manifest lists the new outputs before the first is written, so that it is true even if the process is killed.
    Another run that writes to a folder on this machine waits. What cannot be written does not stop the rest.

    Args:
        report: The report of the run.
        run: What the manifest says about the run, with its id.
        log_unexpected: Called with each error that is neither of the file system nor expected.
        table: Another file for the table; its suffix selects the format.
        page: The HTML page, which the manifest lists. It is written later, because it says what was written.
    """
    entries = [_entry(file, report.workload, str(run["id"])) for file in report.files]
    try:
        folder = open_folder(report.output_folder)
        tables = [(folder, TABLE), *([open_parent(table, None, "The table")] if table else [])]
        with folder.locked():
            return _write(folder, tables, page, report, run, entries, log_unexpected)
    except (OSError, TopnError) as error:
        reason = _reason(error)
        failed = (replace(entry, status="failed", error=entry.error or reason, outputs=()) for entry in entries)
        return Written(
            manifest=Manifest(run=run, status="failed", entries=tuple(failed)),
            errors=[f"{printable(report.output_folder)} ({reason})"],
            before=Manifest(),
        )


def _write(
    folder: Folder,
    tables: Sequence[Document],
    page: Document | None,
    report: RunReport,
    run: Mapping[str, Any],
    entries: Sequence[Entry],
    log_unexpected: Callable[[BaseException], object],
) -> Written:
    """Write everything between two updates of the manifest, which keep what other runs have written to it."""
    writer = _Writer(folder, report, log_unexpected)
    references = {folder.reference(*document) for document in (*tables, *([page] if page else []))}
    corpus: dict[str, bytes | Output] = {}
    failures = list(filter(None, [writer.attempt(CORPUS, lambda: corpus.update(_corpus_documents(report)))]))
    references |= corpus.keys()
    outdated: list[str] = []
    earlier = Manifest()

    def start(before: Manifest) -> Manifest:
        nonlocal earlier
        earlier = before
        kept, outdated[:] = _merge(before.entries, entries)
        if report.corpus_failure is not None or failures:
            outdated.extend({*report.workload.corpus_names} & {*before.documents})
        documents = {*before.documents, *references, *outdated}
        return Manifest(run=run, status="running", documents=tuple(sorted(documents)), entries=(*entries, *kept))

    _update(folder, start)
    errors = dict(zip(outdated, writer.map(writer.delete, [(path,) for path in outdated]), strict=True))
    written = writer.map(writer.write_file, list(zip(entries, report.files, strict=True)))
    failures += [error for error in errors.values() if error]
    failures += [
        after.error or "" for before, after in zip(entries, written, strict=True) if after.error != before.error
    ]
    failures += filter(
        None,
        (writer.attempt(parent.shown(name), partial(_write_table, parent, name, report)) for parent, name in tables),
    )
    failures += filter(None, writer.map(writer.write, list(corpus.items())))
    status = "failed" if report.is_failed or failures else "completed"
    gone = {path for path, error in errors.items() if error is None} | {
        path for entry in entries for path in entry.outputs
    }

    def end(before: Manifest) -> Manifest:
        kept, others = _merge(before.entries, written)
        documents = {*before.documents, *references, *others} - gone
        return Manifest(run=run, status=status, documents=tuple(sorted(documents)), entries=(*written, *kept))

    failures += filter(None, [writer.attempt(MANIFEST, partial(_update, folder, end))])
    return Written(
        manifest=Manifest(run=run, status=status, documents=tuple(sorted(references)), entries=tuple(written)),
        errors=failures,
        before=earlier,
    )


def _corpus_documents(report: RunReport) -> Mapping[str, bytes | Output]:
    if not isinstance(report.corpus, Corpus):
        return {}
    documents = report.workload.corpus_documents(report.corpus)
    if set(documents) != set(report.workload.corpus_names):
        raise ValueError(
            f"documents of the corpus of workload {report.workload.name} are not {report.workload.corpus_names}"
        )
    return documents


def _write_table(folder: Folder, name: str, report: RunReport) -> None:
    folder.write(name, partial(write_table, report, PurePosixPath(name).suffix))


def _update(folder: Folder, change: Callable[[Manifest], Manifest]) -> None:
    """Change the manifest of a folder, and repeat that if another run has changed it meanwhile."""
    for _ in range(MAX_UPDATES):
        before, version = _read_manifest(folder)
        manifest = change(before)
        with suppress(ChangedError):
            folder.write(MANIFEST, lambda file, manifest=manifest: file.writelines(manifest.blocks()), version)  # type: ignore[misc]
            return
    raise OSError(errno.EAGAIN, "other runs change the manifest all the time")


def contains(listed: Place, place: Place) -> bool:
    """Check whether a listing of an input would contain what is written to a place of the same account."""
    return listed.container in {"", place.container} and place.path.startswith(listed.path)


def _check_outside(local: LocalFiles, documents: Iterable[Document], account: BlobAccount | None) -> None:
    """Check that no output is written where later runs would take it for an input.

    Raises:
        UsageError: A place is within an input.
    """
    for folder, path in documents:
        if account is None or not isinstance(folder, BlobFolder):
            continue
        place = replace(folder.place, path=folder.prefix + path)
        for given in filter(URL.match, local.inputs):
            listed = listed_place(parse_place("The input", given))
            if account.at(listed.account).endpoint == folder.account.endpoint and contains(listed, place):
                raise UsageError(
                    f"{folder.name} {printable(folder.shown(path))} is within the input {printable(given)}, so later runs would "
                    "count it. Set another place."
                )


def listed_place(place: Place) -> Place:
    """Return the place whose listing has all blobs of an input, which can be a pattern."""
    path = before_wildcard(place.path)
    return replace(place, path=path and f"{path.rstrip('/')}/" if path == place.path else path)


def _check_free(
    folder: Folder,
    documents: Sequence[Document],
    listed: Collection[str],
    files: Sequence[FoundFile],
    suffixes: Collection[str],
) -> None:
    """Check that a run replaces nothing but outputs of topn, and none of its inputs.

    Raises:
        UsageError: A file of the user is where an output belongs.
    """
    replaceable = set(listed) - {file.path if URL.match(file.path) else identity(file.path) for file in files}
    outputs = [output_name(file.name) + suffix for file in files for suffix in suffixes]
    for parent, path in ((folder, MANIFEST), (folder, TABLE), *documents, *((folder, output) for output in outputs)):
        kind = parent.kind(path)
        if kind == "folder" or (kind and parent.identity(path) not in replaceable):
            raise _in_the_way(parent.shown(path), "topn did not write it")
    for path in {str(each) for output in outputs for each in PurePosixPath(output).parents}:
        if folder.kind(path) == "file":
            raise _in_the_way(folder.shown(path), "it is not a folder")


def _in_the_way(path: str, reason: str) -> UsageError:
    return UsageError(f"`{printable(path)}` is in the way, because {reason}. Move it, or set another output folder.")


def _reason(error: BaseException) -> str:
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return printable(text).rstrip(".")


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
    """Writes and deletes files in the output folder. Its methods return what failed."""

    def __init__(self, folder: Folder, report: RunReport, log_unexpected: Callable[[BaseException], object]) -> None:
        self._unanswered: list[str] = []
        self._log_unexpected = log_unexpected
        self._folder = folder
        self._report = report

    def map(self, action: Callable[..., R], items: Iterable[tuple[Any, ...]]) -> list[R]:
        """Call a function with each group of arguments, in threads if the folder is in Blob Storage."""
        if self._folder.threads == 1:
            return [action(*item) for item in items]
        with ThreadPoolExecutor(self._folder.threads) as pool:
            # The log of the run is found by the context.
            futures = [pool.submit(copy_context().run, action, *item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def delete(self, path: str) -> str | None:
        """Delete a file, if it exists; return the error."""
        return self.attempt(path, lambda: self._folder.delete(path))

    def write(self, name: str, content: bytes | Output) -> str | None:
        """Write a file; return the error."""
        return self.attempt(name, lambda: self._folder.write(name, content))

    def write_file(self, entry: Entry, file: FileReport) -> Entry:
        """Write the outputs of a file, and return its final entry. A file that fails has no outputs."""
        result = file.result
        if result is None:
            return entry
        error = self.attempt(file.file.output, lambda: self._write_documents(file, result))
        if error is None:
            return replace(entry, status=file.status)
        remaining = tuple(output for output in entry.outputs if not self._is_deleted(output))
        return replace(entry, status="failed", error=error, outputs=remaining)

    def attempt(self, path: str, action: Callable[[], object]) -> str | None:
        """Call a function that writes to a path, and return its error."""
        if len(self._unanswered) >= MAX_UNANSWERED:
            return f"{printable(path)} ({self._unanswered[-1]})"
        try:
            action()
        except (OSError, TopnError) as error:
            if isinstance(error, ServiceError) and error.transient:
                self._unanswered.append(_reason(error))
            return f"{printable(path)} ({_reason(error)})"
        except Exception as error:  # noqa: BLE001 - a workload that fails on one file must not keep back the others
            self._log_unexpected(error)
            return f"{printable(path)} (unexpected {type(error).__name__}, see the log of the run)"
        return None

    def _is_deleted(self, path: str) -> bool:
        return self.delete(path) is None or self._folder.kind(path) is None

    def _write_documents(self, file: FileReport, result: StoredResult) -> None:
        workload = self._report.workload
        documents = workload.documents(file.file, result)
        if set(documents) != set(workload.suffixes):
            raise ValueError(f"documents of workload {workload.name} are not {workload.suffixes}")
        for suffix, content in documents.items():
            self._folder.write(file.file.output + suffix, content)
