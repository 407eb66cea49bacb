"""Azurite, the storage half of the local Azure, as a child process."""

from __future__ import annotations

import collections
import os
import signal
import threading
from pathlib import Path

from localbatch.processes.certificate import Certificate
from localbatch.processes.installation import AzuriteError, find_azurite, find_node
from localbatch.processes.launcher import Child, Launcher
from localbatch.processes.sockets import choose_port

STORAGE_ACCOUNT = "devstoreaccount1"
STORAGE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and the key that every Azurite has. Source: "Use the Azurite emulator", well-known account and key."""

START_SECONDS = 60.0
STOP_SECONDS = 5.0
PORT_ATTEMPTS = 5
_READY = "Blob service successfully listens"
_PORT_TAKEN = "EADDRINUSE"


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
