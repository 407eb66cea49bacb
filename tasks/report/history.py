"""The history of runs: the manifest of each run in the results store, and how to find one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import UUID

from tasks.errors import ServiceError, TopnError, UsageError
from tasks.model.naming import NAME_PREFIX
from tasks.model.verdict import FileReport
from tasks.report.manifest import Manifest, parse_manifest, parse_start
from tasks.report.markdown import cost
from tasks.report.model import RunReport
from tasks.text import printable, shorten
from tasks.workload.result_files import RUN_SUFFIX, RUNS, ResultFiles

# Most manifests say everything about their run in their first bytes, before the inputs.
START_BYTES = 64 * 1024

# Requests at the same time, which hide the latency to Azure.
THREADS = 16

MAX_CELL_CHARACTERS = 80
MIN_SHORT_ID_CHARACTERS = 8
MAX_LISTED_MATCHES = 5

# The number of hexadecimal digits of an id. In the name of a run, its generation follows.
ID_DIGITS = 32


def with_history(manifest: Manifest, report: RunReport) -> Manifest:
    """Return the manifest of a run for the results store, with what the history shows of the run besides.

    The manifest has the entries of all files of the report in their order.
    """
    run = {
        **manifest.run,
        "name": report.run_name,
        "files": dict(Counter(entry.status for entry in manifest.entries)),
        "done": report.workload.done,
        "figures": dict(report.figures),
        "corpus": report.corpus_line,
        "steps": {step.step: round(step.seconds, 3) for step in report.steps},
        "cost": cost(report),
        "output_folder": report.output_folder,
    }
    entries = [
        replace(entry, cells=_cells(report, file)) for entry, file in zip(manifest.entries, report.files, strict=True)
    ]
    return replace(manifest, run=run, entries=tuple(entries))


def _cells(report: RunReport, file: FileReport) -> dict[str, str | int]:
    """Return the texts and numbers of a file's row. Lists, such as words with their counts, would take much space."""
    return {
        name: shorten(cell, MAX_CELL_CHARACTERS) if isinstance(cell, str) else cell
        for name, cell in report.columns(file).items()
        if isinstance(cell, (str, int))
    }


def previous_run(before: Manifest, run_id: str, files: ResultFiles) -> Manifest | None:
    """Return what is known of the run that wrote to an output folder before this one; None if there was none.

    The manifest of the folder has its inputs. The start of its stored manifest has its figures and times, which takes one
    small request, whatever the number of files.

    Args:
        before: The manifest of the folder before this run.
        run_id: The id of this run.
        files: The files of the results store.
    """
    previous_id = str(before.run.get("id", ""))
    if previous_id in {"", run_id}:
        return None
    run = before.run
    with suppress(OSError, ValueError, TopnError):
        stored = parse_start(files.read_start(_path(str(UUID(previous_id))), START_BYTES))
        run = stored.run if stored is not None else run
    return replace(before, run=run, entries=tuple(entry for entry in before.entries if entry.run == previous_id))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The newest runs.

    Attributes:
        runs: The starts of their manifests, without inputs, newest first.
        short_ids: The shortest unique starts of the ids of all runs, by id.
        damaged: What cannot be read, and why.
    """

    runs: tuple[Manifest, ...]
    short_ids: Mapping[str, str]
    damaged: Mapping[str, str]


class History:
    """The manifests of past runs.

    A listing of the store says which are the newest, so the time for a list does not depend on the number of runs, and
    hardly on that of their files.
    """

    def __init__(self, files: ResultFiles) -> None:
        self._files = files

    def newest(self, limit: int) -> Listing:
        """Return the newest runs, at most `limit`.

        Raises:
            ServiceError: Storage does not answer.
            OSError: The folder cannot be read.
        """
        ids = self._ids()
        damaged: dict[str, str] = {}

        def read(run_id: str) -> Manifest | None:
            try:
                return parse_start(self._files.read_start(_path(run_id), START_BYTES)) or self._read(run_id)
            except (OSError, ValueError, TopnError) as error:
                if isinstance(error, ServiceError) and error.transient:
                    raise
                damaged[_path(run_id)] = _reason(error)
                return None

        with ThreadPoolExecutor(THREADS) as pool:
            runs = list(pool.map(read, ids[:limit]))
        return Listing(runs=tuple(filter(None, runs)), short_ids=short_ids(ids), damaged=damaged)

    def find(self, start: str) -> Manifest:
        """Return the whole manifest of the run whose id or name starts with a text.

        Raises:
            UsageError: No run matches, or several do, or its manifest is damaged.
            ServiceError: Storage does not answer.
        """
        wanted = start.lower().removeprefix(NAME_PREFIX).replace("-", "")
        generation = wanted[ID_DIGITS:]
        ids = self._ids()
        found = [
            run_id
            for run_id in ids
            if run_id.replace("-", "").startswith(wanted[:ID_DIGITS]) and (not generation or generation.isdecimal())
        ]
        if not found:
            raise UsageError(f"No run starts with `{start}`. Run `topn log` without a name to list them.")
        if len(found) > 1:
            short = short_ids(ids)
            names = ", ".join(short[run_id] for run_id in found[:MAX_LISTED_MATCHES])
            more = f" and {len(found) - MAX_LISTED_MATCHES:,} more" if len(found) > MAX_LISTED_MATCHES else ""
            raise UsageError(f"{len(found):,} runs start with `{start}`: {names}{more}. Use more characters.")
        try:
            return self._read(found[0])
        except (OSError, ValueError) as error:
            raise UsageError(
                f"The manifest of run {found[0]} in the results store cannot be read: {_reason(error)}."
            ) from error

    def _ids(self) -> list[str]:
        """Return the ids of all runs, newest first."""
        files = sorted(self._files.list_files(RUNS), key=lambda file: file.modified_at, reverse=True)
        names = (file.name.removeprefix(RUNS) for file in files)
        return [name.removesuffix(RUN_SUFFIX) for name in names if name.endswith(RUN_SUFFIX) and "/" not in name]

    def _read(self, run_id: str) -> Manifest:
        return parse_manifest(b"".join(self._files.read(_path(run_id))))


def _path(run_id: str) -> str:
    return f"{RUNS}{run_id}{RUN_SUFFIX}"


def _reason(error: Exception) -> str:
    return printable((error.strerror or "") if isinstance(error, OSError) else str(error)).rstrip(".")


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique start of each id, without dashes and not below eight digits."""
    digits = sorted((run_id.replace("-", ""), run_id) for run_id in ids)
    found = {}
    for number, (text, run_id) in enumerate(digits):
        neighbours = [other for other, _ in digits[max(0, number - 1) : number + 2] if other != text]
        length = MIN_SHORT_ID_CHARACTERS
        while any(other.startswith(text[:length]) for other in neighbours):
            length += 1
        found[run_id] = text[:length]
    return found
