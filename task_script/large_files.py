"""The temporary file for counts that exceed the memory limit."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress

from task_script.merging import BLOCK_BYTES, MAX_RUNS, Run
from task_script.vocabulary import SpillError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from task_script.counts import Totals
    from task_script.merging import MergeRuns, Write


class RunFile:
    """Sorted runs in a temporary file without a name.

    Args:
        merge_runs: Merges runs, in C or in Python.

    Raises:
        SpillError: The file cannot be created.
    """

    def __init__(self, merge_runs: MergeRuns) -> None:
        self._merge_runs = merge_runs
        # On a node, the working directory of a Batch task is on the large disk.
        folder = os.environ.get("AZ_BATCH_TASK_WORKING_DIR")
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - `close` closes it.
        except OSError as error:
            raise _spill_error(error) from error
        self._size_bytes = 0
        self._runs: list[Run] = []

    def add(self, lines: Iterable[bytes]) -> None:
        """Append a run.

        Raises:
            SpillError: The file cannot be written.
        """
        start = self._size_bytes
        for block in lines:
            self._write(block)
        self._runs.append(self._run(start))

    def merge(self, num_words: int, write: Write | None) -> Totals:
        """Merge all runs. Pass the lines of the merged run to `write`, unless it is None, and return its totals.

        Raises:
            SpillError: The file cannot be written.
        """
        return self.merge_all(self._runs, num_words, write)

    def merge_all(self, runs: Sequence[Run], num_words: int, write: Write | None) -> Totals:
        """Merge any runs like `merge`, if necessary in several passes."""
        runs = list(runs)
        while len(runs) > MAX_RUNS:
            start = self._size_bytes
            self._merge_runs(runs[:MAX_RUNS], 0, self._write)
            runs = [*runs[MAX_RUNS:], self._run(start)]
        return self._merge_runs(runs, num_words, write)

    def close(self) -> None:
        """Delete the file."""
        with suppress(OSError):
            self._file.close()

    def _run(self, start: int) -> Run:
        """Return the run from `start` to the end of the file."""
        return Run("the temporary file", self._read(start, self._size_bytes))

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        for offset in range(start, stop, BLOCK_BYTES):
            yield os.pread(self._file.fileno(), min(BLOCK_BYTES, stop - offset), offset)

    def _write(self, block: bytes) -> None:
        view = memoryview(block)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise _spill_error(error) from error
        self._size_bytes += len(block)


def _spill_error(error: OSError) -> SpillError:
    return SpillError(f"its counts exceed --memory-mb, and the temporary file cannot be written: {error.strerror}")
