"""Signs of life of a run, by which a sweep distinguishes living runs from dead ones.

A run locks a file in its state folder. The kernel releases the lock when the process ends, however it ends, and not while
the process is suspended. For sweeps in other folders, the run has a heartbeat: it writes the metadata of its output container
again every few minutes. The storage service dates it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Event, Thread

from tasks.azure.accounts import blob_account
from tasks.azure.settings import state_folder
from tasks.clock import service_time
from tasks.errors import ServiceError
from tasks.files import ensure_private_folder
from tasks.model.run import Run
from tasks.steps.step import warn

RUNS_FOLDER = "runs"

HEARTBEAT_SECONDS = 120.0

# A run with an older heartbeat is dead. A living run writes it seven times in this period.
MAX_HEARTBEAT_AGE = timedelta(minutes=15)

# The files that this process has locked, by flow run id. An open file keeps its lock.
_locked: dict[str, int] = {}


@dataclass(frozen=True, kw_only=True)
class LifeFile:
    """What the file of a run in the state folder says about it.

    Attributes:
        is_alive: Whether a process holds the lock.
        has_ended: Whether the cleanup of the run has started, so that nobody will collect its results.
        written_at: The last sign of life by the service's clock: the start of the run, its last heartbeat, or the start of
            its cleanup.
    """

    is_alive: bool
    has_ended: bool
    written_at: datetime


def lock_run(flow_run_id: str) -> None:
    """Lock the file of a run until this process ends. Without a writable state folder, only warn."""
    if flow_run_id in _locked:
        return
    try:
        path = _path(flow_run_id)
        ensure_private_folder(state_folder())
        path.parent.mkdir(exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A sweep may have deleted the file before it was locked.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
            os.close(descriptor)
        _locked[flow_run_id] = descriptor
        _touch(path)
    except OSError as error:
        warn(f"If this run dies, it is recognized only when its heartbeat is old: {error.strerror}.")


def mark_ended(flow_run_id: str) -> None:
    """Record that the cleanup of a run has started, and unlock its file. A run of another folder has no file here."""
    with suppress(OSError):
        # The size is the mark, because changing it needs no space on a full disk.
        os.truncate(_path(flow_run_id), 1)
        _touch(_path(flow_run_id))
    if (descriptor := _locked.pop(flow_run_id, None)) is not None:
        os.close(descriptor)


def read_life_file(flow_run_id: str) -> LifeFile | None:
    """Read the file of a run; None if this state folder has none."""
    try:
        with _path(flow_run_id).open() as file:
            status = os.fstat(file.fileno())
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                is_alive = False
            except BlockingIOError:
                is_alive = True
    except OSError:
        return None
    written_at = service_time(at=datetime.fromtimestamp(status.st_mtime, timezone.utc))
    return LifeFile(is_alive=is_alive, has_ended=status.st_size > 0, written_at=written_at)


def forget_dead_runs(except_for: Collection[str]) -> None:
    """Delete the old files of dead runs, except those of runs that left something behind.

    A newer one may be of a run in another account. By its heartbeat, that run is not yet dead.
    """
    before = service_time() - MAX_HEARTBEAT_AGE
    for path in (state_folder() / RUNS_FOLDER).glob("*"):
        found = read_life_file(path.name)
        if found is None or found.is_alive or found.written_at > before:
            continue
        if path.name not in except_for:
            with suppress(OSError):
                path.unlink()


@contextmanager
def heartbeat(run: Run) -> Iterator[None]:
    """Write the heartbeat of a run while the block runs, in a thread."""
    ended = Event()
    # A new thread does not inherit the context variables, from which Prefect takes its settings.
    account = blob_account()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            # The next heartbeat follows soon enough.
            with suppress(OSError):
                _touch(_path(run.flow_run_id))
            with suppress(ServiceError):
                account.write_container_metadata(run.containers.outputs, run.metadata(kept=run.keep.containers))

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _touch(path: Path) -> None:
    """Set the time of a file to the time of this machine. The clock of a file server may differ."""
    now = datetime.now(timezone.utc).timestamp()
    os.utime(path, (now, now))


def _path(flow_run_id: str) -> Path:
    return state_folder() / RUNS_FOLDER / flow_run_id
