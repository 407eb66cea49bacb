"""Node agents: they run tasks as processes in the folders of nodes, and report how they ended.

A node is a folder with the layout of a real one, and tasks have the same environment variables.

https://learn.microsoft.com/azure/batch/files-and-directories
https://learn.microsoft.com/azure/batch/batch-compute-node-environment-variables
"""

from __future__ import annotations

import functools
import logging
import os
import shlex
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from localbatch.account.records import Action, KillRun, Node, RemoveFiles, Report, StartRun, UploadLog
from localbatch.account.specs import Json
from localbatch.nodes.transfer import StorageClient, TransferError, fetch_resource_files, send_log, send_output_files
from localbatch.processes.launcher import Child, Launcher

logger = logging.getLogger(__name__)

# The folders in the root of a node.
FOLDERS = ("applications", "fsmounts", "shared", "startup", "volatile", "workitems")


class NodeAgent:
    """The agents of all nodes, with one thread per run."""

    def __init__(
        self,
        root: Path,
        *,
        account: tuple[str, str],
        launcher: Launcher,
        storage: StorageClient,
        report: Callable[[Report], None],
    ) -> None:
        """Create agents without runs.

        Args:
            root: The folder of the node roots.
            account: The name and the URL of the account, for the environment of tasks.
            launcher: Starts the processes.
            storage: Downloads resource files and uploads output files.
            report: Called from the threads of runs, once per run.
        """
        self._root = root
        self._trash = root / ".trash"
        self._account = account
        self._launcher = launcher
        self._storage = storage
        self._report = report
        self._lock = threading.Lock()
        self._runs: dict[int, _Run] = {}
        self._threads: set[threading.Thread] = set()

    def perform(self, actions: Iterable[Action]) -> None:
        """Start actions, without waiting for processes."""
        for action in actions:
            if isinstance(action, StartRun):
                run = _Run(action, self._environment(action), self.root_of(action.node), self._launcher, self._storage)
                with self._lock:
                    # A killed run of the same task may still be ending in the directory.
                    earlier = [each for each in self._runs.values() if each.directory == run.directory]
                    self._runs[action.run_id] = run
                self._spawn(functools.partial(self._finish, run, earlier))
            elif isinstance(action, KillRun):
                with self._lock:
                    killed = self._runs.get(action.run_id)
                # A run that has ended is unknown here; its report is on the way.
                if killed:
                    killed.kill()
            elif isinstance(action, UploadLog):
                self._spawn(functools.partial(self._upload_log, action))
            else:
                self._remove(action)

    def root_of(self, node: Node) -> Path:
        """Return the root directory of a node."""
        return self._root / node.pool_id.lower() / node.id

    def stop(self) -> None:
        """Kill every run, and return when the last thread has ended."""
        while True:
            with self._lock:
                runs, threads = list(self._runs.values()), list(self._threads)
            for run in runs:
                run.kill()
            if not threads:
                return
            for thread in threads:
                thread.join()

    def _spawn(self, work: Callable[[], None]) -> None:
        def target() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=target, name="localbatch-run", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _finish(self, run: _Run, earlier: Iterable[_Run]) -> None:
        for each in earlier:  # Killed, but perhaps still ending.
            each.ended.wait()
        try:
            report = run.perform()
        except Exception as error:  # Without a report, the run would never end.
            logger.exception("run failed: %s", run.action.directory)
            failure = _failure("servererror", "Unknown", "The task could not be run", error)
            report = Report(run_id=run.action.run_id, exit_code=None, failure=failure)
        with self._lock:
            del self._runs[run.action.run_id]
        run.ended.set()
        self._report(report)

    def _remove(self, action: RemoveFiles) -> None:
        # Renaming frees the name at once; deleting may take long.
        self._trash.mkdir(parents=True, exist_ok=True)
        moved = self._trash / uuid.uuid4().hex
        with suppress(FileNotFoundError):
            (self.root_of(action.node) / action.directory).rename(moved)
            self._spawn(lambda: shutil.rmtree(moved, ignore_errors=True))

    def _upload_log(self, action: UploadLog) -> None:
        # A node has no agent of its own, so its log has only its root directory.
        text = f"node {action.node.id} of pool {action.node.pool_id}: {self.root_of(action.node)}\n"
        try:
            send_log(self._storage, action.container_url, action.name, text, by_identity=action.by_identity)
        except TransferError as error:  # As on the service, the client has its response already.
            logger.warning("service log not uploaded: %s", error)

    def _environment(self, action: StartRun) -> dict[str, str]:
        """Return the environment of a task, which inherits only PATH from this process.

        The base Python of this virtual environment comes first, so that `python3` exists and has none of our packages.
        """
        root, node = self.root_of(action.node), action.node
        task_directory = root / action.directory
        account, url = self._account
        environment = {
            "PATH": os.pathsep.join((f"{sys.base_prefix}/bin", os.environ.get("PATH", os.defpath))),
            "HOME": str(task_directory / "wd"),
            "LANG": "C.UTF-8",
            "AZ_BATCH_ACCOUNT_NAME": account,
            "AZ_BATCH_ACCOUNT_URL": url,
            "AZ_BATCH_POOL_ID": node.pool_id,
            "AZ_BATCH_NODE_ID": node.id,
            "AZ_BATCH_NODE_IS_DEDICATED": str(node.dedicated).lower(),
            "AZ_BATCH_NODE_ROOT_DIR": str(root),
            "AZ_BATCH_NODE_SHARED_DIR": str(root / "shared"),
            "AZ_BATCH_NODE_STARTUP_DIR": str(root / "startup"),
            "AZ_BATCH_NODE_MOUNTS_DIR": str(root / "fsmounts"),
            "AZ_BATCH_TASK_DIR": str(task_directory),
            "AZ_BATCH_TASK_WORKING_DIR": str(task_directory / "wd"),
        }
        if action.preparation_directory:
            preparation = root / action.preparation_directory
            environment["AZ_BATCH_JOB_PREP_DIR"] = str(preparation)
            environment["AZ_BATCH_JOB_PREP_WORKING_DIR"] = str(preparation / "wd")
        return environment | action.environment


class _Run:
    """One attempt at one task, in its own thread. `kill` may be called from any thread."""

    def __init__(
        self, action: StartRun, environment: dict[str, str], root: Path, launcher: Launcher, storage: StorageClient
    ) -> None:
        self.action = action
        self.directory = root / action.directory
        self.ended = threading.Event()
        self._environment = environment
        self._root = root
        self._launcher = launcher
        self._storage = storage
        self._lock = threading.Lock()
        self._is_killed = False
        self._process: Child | None = None

    def kill(self) -> None:
        """Kill the process and its descendants, or prevent its start."""
        with self._lock:
            self._is_killed = True
            if self._process:
                self._process.kill()

    def perform(self) -> Report:
        """Download resource files, run the command line, upload output files, and return the report."""
        action = self.action
        directory = self.directory / "wd"
        exit_code: int | None = None
        try:
            self._make_directories(directory)
            fetch_resource_files(self._storage, action.resource_files, directory, cancelled=lambda: self._is_killed)
            exit_code = self._execute(directory)
            if not self._is_killed:
                send_output_files(
                    self._storage, action.output_files, directory, self._environment, succeeded=exit_code == 0
                )
        except (TransferError, _LaunchError) as error:
            return Report(run_id=action.run_id, exit_code=exit_code, failure=error.failure)
        except OSError as error:
            failure = _failure("servererror", "ResourceDirectoryCreateFailed", "The node could not be prepared", error)
            return Report(run_id=action.run_id, exit_code=exit_code, failure=failure)
        return Report(run_id=action.run_id, exit_code=exit_code)

    def _make_directories(self, directory: Path) -> None:
        # The directory of a killed run may be removed, and must not be created again.
        with self._lock:
            if not self._is_killed:
                for folder in FOLDERS:
                    (self._root / folder).mkdir(parents=True, exist_ok=True)
                directory.mkdir(parents=True, exist_ok=True)

    def _execute(self, directory: Path) -> int:
        """Run the command line without a shell, as the service does, and return its exit code.

        Unlike the service, find the program on the PATH.
        """
        try:
            arguments = shlex.split(self.action.command_line)
            with (
                Path(os.devnull).open("rb") as nothing,
                (self.directory / "stdout.txt").open("wb") as out,
                (self.directory / "stderr.txt").open("wb") as err,
                self._lock,
            ):
                # Killed between the download and the start.
                if self._is_killed:
                    return 128 + signal.SIGKILL
                files = (nothing.fileno(), out.fileno(), err.fileno())
                self._process = self._launcher.start(
                    arguments, environment=self._environment, directory=directory, files=files
                )
            code = self._process.wait()
        except FileNotFoundError as error:
            raise _LaunchError("CommandProgramNotFound", "The specified command program is not found", error) from error
        except (OSError, ValueError, IndexError) as error:
            raise _LaunchError("CommandLaunchFailed", "The specified command could not be launched", error) from error
        # Nodes report signals like a shell.
        return 128 - code if code < 0 else code


class _LaunchError(Exception):
    """The process could not be started; `failure` is the failureInfo."""

    def __init__(self, code: str, message: str, reason: Exception) -> None:
        super().__init__(f"{code}: {reason}")
        self.failure = _failure("usererror", code, message, reason)


def _failure(category: str, code: str, message: str, reason: Exception) -> Json:
    details = [{"name": "Message", "value": str(reason)}]
    return {"category": category, "code": code, "message": message, "details": details}
