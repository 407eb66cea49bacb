"""Write files atomically."""

from __future__ import annotations

import os

from task_script.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class FileFailedError(Exception):
    """A file cannot be processed, or its result cannot be written. The message names the file and the reason."""


class AtomicFile:
    """A temporary file in the folder of `path`, which gets that name at the end of a block without an exception.

    Raises:
        FileFailedError: The file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        folder = os.path.dirname(path)
        # The name is unique, because two processes may write the same output. The last one wins.
        self._temporary = os.path.join(folder, f".topn-{os.urandom(8).hex()}.tmp")
        try:
            if folder:
                os.makedirs(folder, exist_ok=True)
            self._file = open(self._temporary, "xb")  # noqa: SIM115 - `__exit__` closes it.
        except OSError as error:
            raise self._failed(error) from error

    def write(self, data: bytes) -> None:
        """Append to the file.

        Raises:
            FileFailedError: The file cannot be written.
        """
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> AtomicFile:  # noqa: PYI034 - `Self` needs Python 3.11.
        """Return the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Rename the file, or delete it after an exception."""
        is_renamed = False
        try:
            self._file.close()
            if error is None:
                os.replace(self._temporary, self._path)
                is_renamed = True
        except OSError as failure:
            if error is None:
                raise self._failed(failure) from failure
        finally:
            if not is_renamed and os.path.lexists(self._temporary):
                os.unlink(self._temporary)

    def _failed(self, error: OSError) -> FileFailedError:
        return FileFailedError(f"output error: {printable(self._path)} cannot be written: {error.strerror}")
