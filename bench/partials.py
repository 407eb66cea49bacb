"""Measure small files and packs of them, and writing and merging partials. CPU time is that of all processes."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.counting import SMALL_FILE, TUTORIAL, word_of_rank, write_text
from bench.measure import Run, in_turn
from task_script.partials import PartialWriter

# Write a pack, the packed task script, and the command for one file.
BUILD = """
import hashlib, pathlib, sys
from tasks.model.chunks import Pack
from tasks.model.files import InputFile
from tasks.workload.packs import packed
from tasks.workload.word_counts import word_count_workload
folder, *names = map(pathlib.Path, sys.argv[1:])
workload = word_count_workload(10, ignore_case=False, corpus=True)
files = []
for path in names:
    sha256, size_bytes = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
    files.append(InputFile(
        path=str(path), name=path.name, output=path.stem, sha256=sha256, size_bytes=size_bytes, content_key=sha256
    ))
with packed(Pack.of(files), workload) as (archive, _):
    (folder / "pack.tar").write_bytes(archive.read())
for name, content in workload.files.items():
    (folder / name).write_bytes(content)
(folder / "command.sh").write_text(workload.command)
"""

PACK_COMMAND = "mkdir packs/$$ && cd packs/$$ && tar -xf ../../pack.tar && exec /bin/sh run_pack.sh"

PACKED_FILES = 100
SIZES_MB = (1, 100)
PARTIALS = 100
WORDS_PER_PARTIAL = 1_000_000
VOCABULARY = 3_000_000


def partials(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Measure small files, then partials of large files, then the merge of many partials."""
    package = _build(folder, environment)
    # The nodes' Python is the system's, without the packages of a virtual environment.
    python = folder / "programs" / "python3"
    environment = {
        **environment,
        "FILES": str(folder),
        "PATH": f"{python.parent}:{environment['PATH']}",
    }
    script = [str(python), "-I", "-S", str(package)]
    options = ["--num-words", "10", "--output-dir", str(folder / "out")]
    partial = ["--partial", "partial.gz"]
    small = folder / "0.txt"
    found = {
        "small": _measured(
            {
                "2 KB, tutorial": [str(python), str(TUTORIAL), str(small), str(folder / "tutorial.json")],
                "2 KB": [*script, *options, str(small)],
                "2 KB with partial": [*script, *options, *partial, str(small)],
                "2 KB as a Batch task, with partial": ["/bin/sh", "-c", f"cd {folder}/single && . ../command.sh"],
                "pack of 100 x 2 KB, with partials": ["/bin/sh", "-c", f"cd {folder} && {PACK_COMMAND}"],
            },
            environment,
            rounds=15,
        )
    }
    in_python = [str(python), "-m", "task_script"]
    for megabytes in SIZES_MB:
        text = folder / f"{megabytes} MB.txt"
        write_text(text, megabytes * 10**6)
        commands = {
            f"{megabytes} MB{name}, {language}": [*program, *options, *more, str(text)]
            for language, program in (("compiled", script), ("Python", in_python))
            for name, more in (("", []), (" with partial", partial))
        }
        found[text.stem] = _measured(commands, environment, rounds=5)
        text.unlink()
    names = _write_partials(folder)
    for rounds, language, program in ((3, "compiled", script), (1, "Python", in_python)):
        commands = {
            f"{option} of {PARTIALS} x 1,000,000 words, {language}": [*program, option, str(folder / "merged"), *names]
            for option in ("--merge", "--corpus")
        }
        found[language] = _measured(commands, environment, rounds=rounds)
    return dict(found)


def _build(folder: Path, environment: Mapping[str, str]) -> Path:
    """Prepare a folder like a node, and return the packed task script."""
    for name in ("programs", "packs", "single", "out"):
        (folder / name).mkdir()
    (folder / "programs" / "python3").symlink_to(Path(sys.executable).resolve())
    inputs = []
    for number in range(PACKED_FILES):
        path = folder / f"{number}.txt"
        path.write_text(SMALL_FILE.replace("cat", f"cat{number}"))
        inputs.append(str(path))
    (folder / "single" / "input.txt").write_text(SMALL_FILE)
    environment = {**environment, "TOPN_STATE": str(folder / "state"), "ZIG_GLOBAL_CACHE_DIR": str(folder / "zig")}
    subprocess.run([sys.executable, "-c", BUILD, str(folder), *inputs], env=environment, check=True)
    [package] = folder.glob("*.pyz")
    subprocess.run([folder / "programs" / "python3", "-I", "-S", str(package), "--check"], check=True)
    return package


def _write_partials(folder: Path) -> list[str]:
    """Write partials with random words of one vocabulary."""
    lines = sorted(f"{word_of_rank.__wrapped__(rank)}\t{rank % 5 + 1}\n".encode() for rank in range(VOCABULARY))
    names = []
    for number in range(PARTIALS):
        chosen = sorted(random.Random(number).sample(range(VOCABULARY), WORDS_PER_PARTIAL))
        path = folder / f"{number}.gz"
        with path.open("wb") as file:
            writer = PartialWriter(file.write)
            writer.write(b"".join(map(lines.__getitem__, chosen)))
            writer.close()
        names.append(str(path))
    return names


def _measured(commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], rounds: int) -> dict[str, object]:
    """Run commands in turn, and print and return the CPU times and the peaks of memory."""
    runs = in_turn(commands, environment, rounds, is_warm=rounds == 1)
    for name, measured in runs.items():
        cpu = [run.cpu_seconds for run in measured]
        print(
            f"{name:52} CPU {statistics.median(cpu):8.3f} s (from {min(cpu):.3f} to {max(cpu):.3f}), "
            f"{_peak_mib(measured):6.1f} MiB"
        )
    return {
        name: {
            "cpu_seconds": [round(run.cpu_seconds, 4) for run in measured],
            "peak_mib": round(_peak_mib(measured), 1),
        }
        for name, measured in runs.items()
    }


def _peak_mib(runs: Sequence[Run]) -> float:
    return max(run.peak_mib for run in runs)
