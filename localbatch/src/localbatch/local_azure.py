"""The local Azure: a Batch account and a storage account beside each other, in a directory of their own."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from localbatch.batch_service import new_faults
from localbatch.faults.definitions import REQUEST_FAULTS, FaultError
from localbatch.faults.script import Faults
from localbatch.faults.storage_proxy import OPERATIONS, StorageProxy
from localbatch.local_batch import NODES, BatchOptions, LocalBatch
from localbatch.processes.azurite import STORAGE_ACCOUNT, STORAGE_KEY, Azurite
from localbatch.processes.launcher import Launcher
from localbatch.processes.running import Running

if TYPE_CHECKING:
    from typing_extensions import Unpack

ENDING_SECONDS = 0.5
"""How long a directory that is wanted is waited for: a server that was killed may just be ending."""
POLL_SECONDS = 0.01


class LocalAzure(Running):
    """A Batch account and a storage account on 127.0.0.1; a context manager.

    Attributes:
        batch: The Batch account.
        endpoint, account, key: Of the Batch account.
        storage_endpoint, storage_account, storage_key: Of the storage account.
        faults: What is made to go wrong on demand with the Batch account.
    """

    def __init__(
        self,
        *,
        state_dir: Path | str | None = None,
        storage_port: int = 0,
        storage_faults: bool = False,
        storage_key: str = STORAGE_KEY,
        **options: Unpack[BatchOptions],
    ) -> None:
        """Start nothing yet.

        Args:
            state_dir: Where blobs are kept, and nodes until the end; if another local Azure is at work there, the
                first free directory beside it is taken. A temporary directory unless given.
            storage_port: The port of the storage account, if it is free; 0 for any.
            storage_faults: Whether requests to the storage account can be made to go wrong. They then take a way
                through this process.
            storage_key: Of the storage account, in Base64.
            options: Of the Batch account; LocalBatch says what they mean.
        """
        super().__init__()
        self._state_dir = state_dir
        self._storage_port = storage_port
        self._options = options
        self._storage_faults = Faults(OPERATIONS, names=REQUEST_FAULTS) if storage_faults else None
        self.faults = new_faults()
        self.storage_account = STORAGE_ACCOUNT
        self.storage_key = storage_key

    @property
    def storage_faults(self) -> Faults:
        """What is made to go wrong on demand with the storage account.

        Raises:
            FaultError: It was started without `storage_faults`.
        """
        if self._storage_faults is None:
            raise FaultError("No storage faults can happen: start with storage_faults=True")
        return self._storage_faults

    def start(self) -> None:
        """Start both, beside each other, and return when both answer.

        Raises:
            AzuriteError: Azurite did not start, or is not installed.
        """
        with contextlib.ExitStack() as stack:
            if self._state_dir:
                state_dir, lock = claim_directory(Path(self._state_dir).resolve())
                stack.enter_context(lock)
                # Nobody else may come in before everything of ours has ended.
                launcher = Launcher(remove=[state_dir / NODES], keep_open=[lock.fileno()])
            else:
                state_dir = Path(tempfile.mkdtemp(prefix="localbatch-")).resolve()
                launcher = Launcher(remove=[state_dir])
            stack.callback(launcher.close)
            port = 0 if self._storage_faults else self._storage_port
            certificate = self._options.get("certificate")
            azurite = Azurite(
                state_dir / "blob",
                port=port,
                launcher=launcher,
                key=self.storage_key,
                certificate=certificate,
                oauth=self._options.get("oauth", False),
            )
            stack.callback(azurite.stop)
            azurite.launch()
            self.batch = LocalBatch(
                state_dir=state_dir,
                launcher=launcher,
                faults=self.faults,
                storage_faults=self._storage_faults,
                **self._options,
            )
            stack.enter_context(self.batch)
            azurite.wait_until_ready()
            self.endpoint, self.account, self.key = self.batch.endpoint, self.batch.account, self.batch.key
            self.storage_endpoint = azurite.endpoint
            if self._storage_faults:
                passage = StorageProxy(
                    azurite.endpoint, self._storage_faults, port=self._storage_port, certificate=certificate
                )
                stack.enter_context(passage)
                self.storage_endpoint = passage.endpoint
            self._closing = stack.pop_all()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a client here."""
        return {
            "TOPN_BATCH_ENDPOINT": self.endpoint,
            "TOPN_BATCH_ACCOUNT": self.account,
            "TOPN_BATCH_KEY": self.key,
            "TOPN_STORAGE_ENDPOINT": self.storage_endpoint,
            "TOPN_STORAGE_ACCOUNT": self.storage_account,
            "TOPN_STORAGE_KEY": self.storage_key,
        }


def claim_directory(wanted: Path) -> tuple[Path, IO[str]]:
    """Return the wanted directory, or the first free one beside it, and the lock that holds it until it is closed."""
    give_up_at = time.monotonic() + ENDING_SECONDS
    number = 1
    while True:
        directory = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            if number > 1 or time.monotonic() > give_up_at:
                number += 1
            else:
                time.sleep(POLL_SECONDS)
            continue
        return directory, lock
