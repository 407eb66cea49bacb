"""Merge partials: into one partial, or into the counts of a corpus."""

from __future__ import annotations

import json
import os

from task_script.counting import create_run_file
from task_script.files import AtomicFile, FileFailedError
from task_script.merging import CountError, RunError
from task_script.partials import PartialWriter, open_partial
from task_script.text import printable
from task_script.vocabulary import SpillError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from task_script.counts import Totals
    from task_script.merging import Write


def write_merged(files: Sequence[str], output: str) -> None:
    """Merge partials into one partial. A file that is named several times counts as often.

    Raises:
        FileFailedError: A file is not a partial, a sum of counts is too large, or the output cannot be written.
    """
    with AtomicFile(output) as file:
        writer = PartialWriter(file.write)
        _merge(files, 0, writer.write)
        writer.close()


def write_corpus(files: Sequence[str], output: str, num_words: int) -> None:
    """Merge partials, and write the totals and the most frequent words as one line of JSON in ASCII.

    Raises:
        FileFailedError: As for `write_merged`.
    """
    totals = _merge(files, num_words, None)
    document = {"words": totals.words, "distinct": totals.distinct, "top": totals.top}
    with AtomicFile(output) as file:
        file.write(f"{json.dumps(document)}\n".encode())


def _merge(files: Sequence[str], num_words: int, write: Write | None) -> Totals:
    try:
        size_bytes = sum(map(os.path.getsize, files))
    except OSError:
        size_bytes = 0  # Opening the file raises the error with its name.
    try:
        store = create_run_file(size_bytes)
        try:
            return store.merge_all([open_partial(file) for file in files], num_words, write)
        finally:
            store.close()
    except RunError as error:
        raise FileFailedError(f"input error: {printable(error.name)} {error}") from error
    except CountError as error:
        raise FileFailedError(f"input error: {error}") from error
    except SpillError as error:
        raise FileFailedError(f"the partials cannot be merged: {error}") from error
