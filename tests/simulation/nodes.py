"""Simulated nodes that fetch files, call the functions of the task script and upload outputs, in virtual time.

Transfers use localbatch's own code (`localbatch.nodes.transfer`) above a replaced wire. Nodes recognise command lines instead
of running them. tests/integration runs the shell and run_pack.sh in real processes.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.error import HTTPError

from localbatch.account.records import Action, KillRun, Node, RemoveFiles, Report, StartRun
from localbatch.nodes.transfer import StorageClient, TransferError, fetch_resource_files, send_output_files
from simulation.storage import Request, Response
from simulation.world import Process, World
from task_script import top_words
from tasks.workload.base import NODE_INPUT
from tasks.workload.packs import INPUT_HASH, PARTIALS

# The directory of a node that our command lines use.
SHARED = "shared"

# Exit codes of a shell for a missing program, and of Python for bad usage.
NOT_FOUND = 127
BAD_USAGE = 2


@dataclass
class Nodes:
    """Performs the actions of the scheduler.

    Attributes:
        report: Receives the report of a process that ended.
        seconds: Returns the duration of a Batch task.
        now: The clock of the services.
        counted: How often each content was counted, by SHA-256.
    """

    world: World
    process: Process
    root: Path
    send: Callable[[Request], Response]
    report: Callable[[Report], None]
    seconds: Callable[[StartRun], float]
    now: Callable[[], datetime]
    counted: Counter[str] = field(default_factory=Counter)
    _killed: set[int] = field(default_factory=set)

    def perform(self, actions: Iterable[Action]) -> None:
        """Start the actions that a tick returned."""
        for action in actions:
            if isinstance(action, StartRun):
                run = action
                self.world.spawn(f"run {run.directory}", self.process, lambda run=run: self._run(run))  # type: ignore[misc]
            elif isinstance(action, KillRun):
                self._killed.add(action.run_id)
            elif isinstance(action, RemoveFiles):
                shutil.rmtree(self.root_of(action.node) / action.directory, ignore_errors=True)

    def root_of(self, node: Node) -> Path:
        """Return the root directory of a node."""
        return self.root / node.pool_id.lower() / node.id[:16]

    def _run(self, action: StartRun) -> None:
        root = self.root_of(action.node)
        directory = root / action.directory / "wd"
        for folder in (root / SHARED, directory):
            folder.mkdir(parents=True, exist_ok=True)
        environment = _environment(action, root)
        storage = _Storage(self.world, self.send, self.now)
        code: int | None = None
        failure = None
        try:
            fetch_resource_files(storage, action.resource_files, directory, cancelled=lambda: False)
            self.world.sleep(self.seconds(action))
            if action.run_id in self._killed:
                return
            code = self._execute(action, directory, environment)
            send_output_files(storage, action.output_files, directory, environment, succeeded=code == 0)
        except TransferError as error:
            failure = error.failure
        except OSError as error:
            # The node was removed with its files.
            self.world.note(f"a run lost its directory: {error.strerror}")
        if action.run_id not in self._killed:
            self.report(Report(run_id=action.run_id, exit_code=code, failure=failure))

    def _execute(self, action: StartRun, directory: Path, environment: Mapping[str, str]) -> int:
        """Emulate one of our command lines and return the exit code."""
        words = shlex.split(action.command_line)
        script = words[2] if words[:2] == ["/bin/sh", "-c"] else action.command_line
        out, err = io.StringIO(), io.StringIO()
        with _inside(directory), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = self._script(script, directory, environment)
        for name, stream in (("stdout.txt", out), ("stderr.txt", err)):
            (directory.parent / name).write_text(stream.getvalue())
        return code

    def _script(self, script: str, directory: Path, environment: Mapping[str, str]) -> int:
        if "--merge" in script or "--corpus" in script:
            return self._attempts(lambda: self._merge(script, _files_of(script, environment)))[0]
        if "run_pack.sh" in script:
            return self._pack(directory, _files_of(script, environment))
        if "--check" in script:
            for name in re.findall(r"mv -f (\S+) ", script):
                (directory / name).replace(Path(environment["AZ_BATCH_NODE_SHARED_DIR"]) / name)
            return 0
        return self._attempts(lambda: self._count(script, _files_of(script, environment)))[0]

    def _attempts(self, process: Callable[[], int]) -> tuple[int, int, str]:
        """Process a file a second time if the program failed but did not reject it, as the shell scripts do.

        Returns:
            The exit code, the number of attempts, and what the last one wrote to stderr.
        """
        for attempt in (1, 2):
            error = io.StringIO()
            with contextlib.redirect_stderr(error):
                code = process()
            if code == 0 or attempt == 2 or error.getvalue().startswith("input error: "):
                break
        print(error.getvalue(), end="", file=sys.stderr)
        return code, attempt, error.getvalue()

    def _count(self, command: str, files: Path) -> int:
        """Count the file in the current directory with the shipped task script."""
        if "sha256sum" in command and not Path(INPUT_HASH).exists():
            [blob] = Path().glob(f"{NODE_INPUT}*")
            Path(INPUT_HASH).write_text(f"{top_words.hashlib.sha256(blob.read_bytes()).hexdigest()}  {blob}\n")
        match = re.search(r'exec python3 -I -S "\$FILES"/(\S+) (.+)$', command, re.MULTILINE)
        if match is None:
            print(f"not a command of ours: {command}")
            return NOT_FOUND
        if not (files / match[1]).exists():
            return BAD_USAGE
        pattern, *options = shlex.split(match[2])
        arguments = [*(path.name for path in Path().glob(pattern)), *options]
        with contextlib.suppress(OSError):
            self.counted[top_words.hashlib.sha256(Path(arguments[0]).read_bytes()).hexdigest()] += 1
        return top_words.main(arguments)

    def _merge(self, script: str, files: Path) -> int:
        """Put the partials into their folders, as the input of a merge says, and merge them with the task script."""
        for line in Path(NODE_INPUT).read_text().splitlines():
            for command in line.removesuffix(" || exit 1").split(" && "):
                program, *arguments = command.split()
                if program == "mkdir":
                    Path(arguments[-1]).mkdir(parents=True, exist_ok=True)
                elif program == "ln":
                    shutil.copyfile(arguments[-2], arguments[-1])
                else:
                    with tarfile.open(arguments[1]) as archive:
                        archive.extractall(arguments[3], members=map(archive.getmember, arguments[4:]), filter="data")
        match = re.search(r'exec python3 -I -S "\$FILES"/(\S+) (.+) (\S+)$', script, re.MULTILINE)
        if match is None or not (files / match[1]).exists():
            print(f"not a command of ours: {script}")
            return NOT_FOUND
        return top_words.main([*shlex.split(match[2]), *map(str, sorted(Path().glob(match[3])))])

    def _pack(self, directory: Path, files: Path) -> int:
        """Emulate run_pack.sh for a pack that is not interrupted."""
        with tarfile.open(directory / "pack.tar") as archive:
            archive.extractall(directory, filter="data")
        command = (directory / "command.sh").read_text().strip()
        outputs = (directory / "outputs.txt").read_text().split()
        partial = (directory / "partial.txt").read_text().strip()
        with (
            tarfile.open(directory / "results.tar", "w") as results,
            tarfile.open(directory / PARTIALS, "w") as partials,
        ):
            for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
                self._file_of_pack(folder, command, files, outputs, results)
                if partial and (folder / partial).exists():
                    partials.add(folder / partial, f"{folder.name}/{partial}")
        return 0

    def _file_of_pack(
        self, folder: Path, command: str, files: Path, outputs: list[str], results: tarfile.TarFile
    ) -> None:
        with _inside(folder):
            code, attempts, stderr = self._attempts(lambda: self._count(command, files))
        found = {name: (folder / name).read_bytes() for name in outputs if (folder / name).exists()}
        if code:
            found = {"stdout.txt": b"", "stderr.txt": stderr.encode()}
        for name, content in {".exit": f"{code} {attempts}\n".encode(), **found}.items():
            member = tarfile.TarInfo(f"{folder.name}/{name}")
            member.size = len(content)
            results.addfile(member, io.BytesIO(content))


class _Storage(StorageClient):
    """The storage client of a node, without a socket."""

    def __init__(self, world: World, send: Callable[[Request], Response], now: Callable[[], datetime]) -> None:
        super().__init__(now)
        self._world = world
        self._send = send

    def _send_once(self, url: str, source: Path | None, headers: Mapping[str, str]) -> IO[bytes]:
        self._world.pause()
        body = source.read_bytes() if source else b""
        names = {name.lower(): value for name, value in headers.items()} | {"content-length": str(len(body))}
        answer = self._send(Request("PUT" if source else "GET", url, names, body))
        if answer.status >= HTTPStatus.BAD_REQUEST:
            error_headers = Message()
            for name, value in answer.headers.items():
                error_headers[name] = value
            raise HTTPError(
                url, answer.status, HTTPStatus(answer.status).phrase, error_headers, io.BytesIO(answer.body)
            )
        return io.BytesIO(answer.body)


def _environment(action: StartRun, root: Path) -> dict[str, str]:
    found = {"AZ_BATCH_NODE_SHARED_DIR": str(root / SHARED), "AZ_BATCH_NODE_ID": action.node.id}
    if action.preparation_directory:
        found["AZ_BATCH_JOB_PREP_WORKING_DIR"] = str(root / action.preparation_directory / "wd")
    return found | action.environment


def _files_of(script: str, environment: Mapping[str, str]) -> Path:
    match = re.search(r'export FILES="\$(\w+)"', script)
    return Path(environment[match[1]] if match else ".")


@contextlib.contextmanager
def _inside(directory: Path) -> Iterable[None]:  # type: ignore[misc]
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
