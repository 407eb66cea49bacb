"""The workload of this project: the task script that runs on a node, what it gives back, and how that is written.

The other steps know nothing of words; they ship a package, run it on one input, and bring its outputs back.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tasks.models import FileReport, InputFile, StoredResult, WordCounts, Workload
from tasks.names import shown

# The start of the sentences in which the task script refuses an input file.
INPUT_ERROR = "input error: "

# Zip files cannot hold an earlier instant; a fixed one makes equal sources equal packages.
FIXED_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

PACKAGE_MAIN = "from task_script.top_words import main\n\nraise SystemExit(main())\n"


def word_count_workload(num_words: int, ignore_case: bool) -> Workload:
    """Pack the task script into one file that `python3` runs, with the options of this run."""
    package = _pack_task_script()
    arguments = ["--num-words", str(num_words)] + (["--ignore-case"] if ignore_case else [])
    package_hash = hashlib.sha256(package).hexdigest()
    return Workload(
        package_name=f"task_script-{package_hash[:16]}.pyz",
        package=package,
        sha256=hashlib.sha256(json.dumps([package_hash, arguments]).encode()).hexdigest(),
        arguments=tuple(arguments),
    )


def parse_counts(content: bytes) -> WordCounts:
    """Read the task script's JSON.

    Raises:
        ValueError: It is not what the task script writes.
    """
    try:
        found: Any = json.loads(content)
        return WordCounts(
            sha256=_typed(found["sha256"], str),
            size_bytes=_typed(found["bytes"], int),
            words=_typed(found["words"], int),
            distinct=_typed(found["distinct"], int),
            top=tuple((_typed(word, str), _typed(count, int)) for word, count in found["top"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an output of the task script ({error})") from error


def as_json(file: InputFile, result: StoredResult) -> dict[str, Any]:
    """Give a result in the form that programs read."""
    counts = result.counts
    return {
        "file": file.name,
        "sha256": counts.sha256,
        "bytes": counts.size_bytes,
        "words": counts.words,
        "distinct": counts.distinct,
        "top": [list(pair) for pair in counts.top],
    }


def as_text(result: StoredResult) -> str:
    """Give a result in the form that people read, as the task script writes it on the node."""
    top, provenance = result.counts.top, result.provenance
    width = len(str(top[0][1])) if top else 0
    words = [f"{count:{width}}  {shown(word)}" for word, count in top] or ["(no words)"]
    places = {
        "Node:": provenance.node_id,
        "Batch task:": provenance.task_id,
        "Job:": provenance.job_id,
        "Pool:": provenance.pool_id,
    }
    return "\n".join([*words, "", *(f"{title:11} {place}" for title, place in places.items()), ""])


def write_outputs(output_folder: Path, report: FileReport) -> None:
    """Write a file's two outputs below the output folder, each moved into place when whole.

    Raises:
        OSError: They cannot be written.
    """
    if report.result is None:
        return
    document = json.dumps(as_json(report.file, report.result), ensure_ascii=False) + "\n"
    write_whole(output_folder / f"{report.file.output}.json", document.encode())
    write_whole(output_folder / f"{report.file.output}.txt", as_text(report.result).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and move it into place, so that nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".topn-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _typed(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _pack_task_script() -> bytes:
    spec = find_spec("task_script")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The package task_script is not installed.")
    folder = Path(next(iter(spec.submodule_search_locations)))
    sources = {f"task_script/{path.name}": path.read_bytes() for path in sorted(folder.glob("*.py"))}
    sources["__main__.py"] = PACKAGE_MAIN.encode()
    packed = io.BytesIO()
    # Stored, not compressed: the bytes, and so every content key, must not depend on the zlib of this machine.
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sources.items():
            archive.writestr(zipfile.ZipInfo(name, FIXED_ZIP_TIME), content)
    return packed.getvalue()
