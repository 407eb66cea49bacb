"""The temporary file for counts that exceed the memory limit."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress

from task_script.counts import PARTS
from task_script.vocabulary import SpillError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class PartFile:
    """Counts in parts, in a temporary file without a name.

    Raises:
        SpillError: The file cannot be created.
    """

    def __init__(self) -> None:
        # On a node, the working directory of a Batch task is on the large disk.
        folder = os.environ.get("AZ_BATCH_TASK_WORKING_DIR")
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `close` closes it.
        except OSError as error:
            raise _spill_error(error) from error
        # For each part, the offset and size of each chunk of it in the file.
        self._chunks: list[list[tuple[int, int]]] = [[] for _ in range(PARTS)]

    def write(self, parts: Iterable[bytes]) -> None:
        """Append to each part.

        Raises:
            SpillError: The file cannot be written.
        """
        try:
            for number, part in enumerate(parts):
                self._chunks[number].append((self._file.tell(), len(part)))
                self._file.write(part)
            self._file.flush()
        except OSError as error:
            raise _spill_error(error) from error

    def read(self, part: int) -> Iterator[bytes]:
        """Yield everything that was appended to one part."""
        for offset, size in self._chunks[part]:
            yield os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        """Delete the file."""
        with suppress(OSError):  # On a full disk, closing tries to write the buffer again.
            self._file.close()


def _spill_error(error: OSError) -> SpillError:
    return SpillError(f"its counts exceed --memory-mb, and the temporary file cannot be written: {error.strerror}")
