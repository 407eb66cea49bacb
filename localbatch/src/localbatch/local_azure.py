"""A local Azure: a Batch account and a storage account, in a folder of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from localbatch.batch_service import new_faults
from localbatch.faults.definitions import REQUEST_FAULTS, FaultError
from localbatch.faults.script import Faults
from localbatch.faults.storage_proxy import OPERATIONS, StorageProxy
from localbatch.local_batch import NODES, LocalBatch
from localbatch.options import Options
from localbatch.processes.azurite import STORAGE_ACCOUNT, Azurite
from localbatch.processes.launcher import Launcher
from localbatch.processes.private import ensure_private_folder, load_key
from localbatch.processes.running import Running

# A server that was killed may still hold its folder for a moment.
LOCK_TIMEOUT_SECONDS = 0.5
POLL_SECONDS = 0.01


class LocalAzure(Running):
    """A Batch account and a storage account on 127.0.0.1; a context manager.

    Attributes:
        batch: The Batch account.
        endpoint, account, key: The URL, name and key of the Batch account.
        storage_endpoint, storage_account, storage_key: The same of the storage account.
        faults: The fault script of the Batch account.
    """

    def __init__(self, options: Options | None = None, **changes: Any) -> None:
        """Create a local Azure without starting it.

        Args:
            options: Its options.
            changes: Single options, as in `LocalAzure(pace="instant")`.

        Raises:
            ValueError: Tokens are to be accepted without https.
        """
        super().__init__()
        self._options = options = dataclasses.replace(options or Options(), **changes)
        self._storage_faults = Faults(OPERATIONS, names=REQUEST_FAULTS) if options.storage_faults else None
        self.faults = new_faults()
        self.storage_account = STORAGE_ACCOUNT

    @property
    def storage_faults(self) -> Faults:
        """The fault script of the storage account.

        Raises:
            FaultError: The option `storage_faults` is not set.
        """
        if self._storage_faults is None:
            raise FaultError("Storage faults are off. Start with storage_faults=True.")
        return self._storage_faults

    def start(self) -> None:
        """Start both accounts in parallel, and return when both answer.

        Raises:
            AzuriteError: Azurite is not installed, or did not start.
        """
        options = self._options
        with contextlib.ExitStack() as stack:
            if options.state_dir:
                state_dir, lock = claim_directory(Path(options.state_dir).resolve())
                stack.enter_context(lock)
                # The launcher keeps the lock until all processes of this local Azure have ended.
                launcher = Launcher(remove=[state_dir / NODES], keep_open=[lock.fileno()])
            else:
                state_dir = Path(tempfile.mkdtemp(prefix="localbatch-")).resolve()
                launcher = Launcher(remove=[state_dir])
            stack.callback(launcher.close)
            self.storage_key = options.storage_key or load_key(state_dir / "storage.key")
            azurite = Azurite(
                state_dir / "blob",
                # With faults, clients talk to the proxy instead.
                port=0 if self._storage_faults else options.storage_port,
                launcher=launcher,
                key=self.storage_key,
                certificate=options.certificate,
                oauth=options.oauth,
            )
            stack.callback(azurite.stop)
            azurite.launch()
            self.batch = LocalBatch(
                options,
                state_dir=state_dir,
                key=options.key or load_key(state_dir / "batch.key"),
                launcher=launcher,
                faults=self.faults,
                storage_script=self._storage_faults,
            )
            stack.enter_context(self.batch)
            azurite.wait_until_ready()
            self.endpoint, self.account, self.key = self.batch.endpoint, self.batch.account, self.batch.key
            self.storage_endpoint = azurite.endpoint
            if self._storage_faults:
                proxy = StorageProxy(
                    azurite.endpoint, self._storage_faults, port=options.storage_port, certificate=options.certificate
                )
                stack.enter_context(proxy)
                self.storage_endpoint = proxy.endpoint
            self._closing = stack.pop_all()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that clients need."""
        return {
            "TOPN_BATCH_ENDPOINT": self.endpoint,
            "TOPN_BATCH_ACCOUNT": self.account,
            "TOPN_BATCH_KEY": self.key,
            "TOPN_STORAGE_ENDPOINT": self.storage_endpoint,
            "TOPN_STORAGE_ACCOUNT": self.storage_account,
            "TOPN_STORAGE_KEY": self.storage_key,
        }

    @property
    def connection_string(self) -> str:
        """The connection string of the storage account, which other clients accept in AZURE_STORAGE_CONNECTION_STRING."""
        return (
            f"DefaultEndpointsProtocol={self.storage_endpoint.partition(':')[0]};AccountName={self.storage_account};"
            f"AccountKey={self.storage_key};BlobEndpoint={self.storage_endpoint};"
        )


def claim_directory(wanted: Path) -> tuple[Path, IO[str]]:
    """Lock a folder, or the first free one next to it, and return it with the open lock file."""
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    number = 1
    while True:
        directory = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        ensure_private_folder(directory)
        lock = (directory / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            if number > 1 or time.monotonic() > deadline:
                number += 1
            else:
                time.sleep(POLL_SECONDS)
            continue
        return directory, lock
