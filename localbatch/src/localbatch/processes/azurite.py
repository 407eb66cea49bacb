"""Azurite, the storage account of a local Azure, as a child process.

https://learn.microsoft.com/azure/storage/common/storage-use-azurite
"""

from __future__ import annotations

import collections
import os
import signal
import threading
from pathlib import Path

from localbatch.processes.certificate import Certificate
from localbatch.processes.installation import AzuriteError, azurite_folder, find_azurite, find_node
from localbatch.processes.launcher import Child, Launcher
from localbatch.processes.sockets import choose_port

# The well-known account and key of Azurite. Anyone on the machine can use an account with this key.
STORAGE_ACCOUNT = "devstoreaccount1"
STORAGE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

START_SECONDS = 60.0
STOP_SECONDS = 5.0
MAX_PORT_ATTEMPTS = 5
# Two lines of its output.
_READY = "Blob service successfully listens"
_PORT_TAKEN = "EADDRINUSE"


class Azurite:
    """A Blob service on this machine. Call `launch`, then `wait_until_ready`, then `stop`."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        launcher: Launcher,
        key: str,
        certificate: Certificate | None = None,
        oauth: bool = False,
    ) -> None:
        """Create the service without starting it.

        Args:
            directory: The folder of its data.
            port: The port; if it is taken or 0, any free port.
            launcher: Starts the process.
            key: The key of the account, in Base64.
            certificate: The certificate of the server; without one it uses http.
            oauth: Whether bearer tokens are accepted too. Their signatures are not checked.
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
        self._has_output = threading.Event()

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
        # The binary itself: `node` on the PATH is a wrapper, whose child outlives it when it is killed.
        node = find_node()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._port = choose_port(self._port)
        self._output.clear()
        self._has_output.clear()
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
            # Node.js keeps the byte code of the modules here, so that a start takes 0.8 s instead of 1.0 s.
            "NODE_COMPILE_CACHE": str(azurite_folder() / "byte-code"),
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
        """Wait until it listens.

        Raises:
            AzuriteError: It ended, or did not listen within a minute.
        """
        for _ in range(MAX_PORT_ATTEMPTS):
            if self._has_output.wait(START_SECONDS) and any(_READY in line for line in self._output):
                return
            self.stop()
            if not any(_PORT_TAKEN in line for line in self._output):
                break
            self._port = 0  # Another process took the port meanwhile.
            self.launch()
        output = "".join(self._output).strip() or "nothing"
        raise AzuriteError(f"Azurite did not start. Its last output: {output}")

    def stop(self) -> None:
        """Stop the process, and wait for its end."""
        if not self._process or not self._reader:
            return
        self._process.send_signal(signal.SIGTERM)  # On SIGTERM it writes its tables to disk.
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
                    self._has_output.set()
        self._has_output.set()
