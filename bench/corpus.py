"""The most frequent words of all texts in a folder: topn on local nodes, DuckDB, Polars, a shell, and Python.

topn counts them in two nights: all files, and again after 1 % of the files have changed. The others count everything in
each night. The result of each is compared with an independent count.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from multiprocessing import Pool
from pathlib import Path
from typing import Any

from bench.counting import BUILD_PACKAGE, zipf_words
from bench.measure import run_measured

CORPUS_WAY = Path(__file__).with_name("corpus_way.py")

# The files of documentation that are mostly English.
TEXT_SUFFIXES = {"", ".txt", ".md", ".rst"}
NO_ENGLISH = ("changelog", "copyright")

CHANGED_SHARE = 0.01
WORDS_PER_LINE = 12

# The words of topn, except that only ASCII white space separates them.
SHELL = r"""find {folder} -name '*.txt' -print0 | xargs -0 cat | LC_ALL=C tr -s '[:space:]' '\n' |
LC_ALL=C sed -E 's/^[[:punct:]]+//; s/[[:punct:]]+$//; /^$/d' |
LC_ALL=C sort | LC_ALL=C uniq -c | LC_ALL=C sort -k1,1nr | head -n {number} > {output}"""

# Runs a command, waits for all processes that it has started, however indirectly, and reports the wall time, the CPU time
# of all of them except those of killed processes' children, and the peak of the largest. It is a process of its own, so that no other process counts.
# 36 is PR_SET_CHILD_SUBREAPER: orphans become children of this process.
TREE = """
import ctypes, os, resource, sys, time
if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0):
    raise OSError(ctypes.get_errno(), "prctl")
os.set_inheritable(int(sys.argv[1]), False)
started = time.monotonic()
command = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
while True:
    try:
        process, status = os.wait()
    except ChildProcessError:
        break
    if process == command:
        seconds = time.monotonic() - started
        code = os.waitstatus_to_exitcode(status)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
os.write(int(sys.argv[1]), str([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]).encode())
sys.exit(code if code >= 0 else 128 - code)
"""

Found = dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    options = parser.add_argument_group("corpus")
    options.add_argument("--files", type=int, default=100, help="number of texts (default: 100)")
    options.add_argument("--megabytes", type=int, default=100, help="size of all texts (default: 100)")
    options.add_argument("--num-words", type=int, default=1000, help="number of words to compare (default: 1000)")
    options.add_argument("--rounds", type=int, default=1, help="number of rounds (default: 1)")
    options.add_argument(
        "--text", type=Path, help="folder with English, such as /usr/share/doc (default: invented words)"
    )
    options.add_argument("--python", default=sys.executable, help="a Python with Polars (default: this one)")


def corpus(folder: Path, environment: Mapping[str, str], options: argparse.Namespace) -> Found:
    """Compare all ways, in rounds, and print a table."""
    texts, changed = folder / "texts", folder / "changed"
    texts.mkdir()
    _write_texts(texts, options)
    _write_changed(texts, changed)
    expected, expected_changed = (_expected(each, folder, environment, options) for each in (texts, changed))
    print(
        f"{options.files:,} files, {expected['words']:,} words, {expected['distinct']:,} of them distinct", flush=True
    )
    ways = _other_ways(texts, folder / "found", environment, options)
    rows: dict[str, list[Found]] = {}
    for _ in range(options.rounds):
        for name, command in ways.items():
            rows.setdefault(name, []).append(_run_other(command, folder / "found", environment, expected))
            print(f"{name}: {rows[name][-1] or 'not installed'}", flush=True)
        for name, inputs, state, counts in (
            ("topn, without corpus", texts, folder / "without", None),
            ("topn, first night", texts, folder / "with", expected),
            ("topn, second night", changed, folder / "with", expected_changed),
        ):
            rows.setdefault(name, []).append(_run_topn(inputs, state, environment, options, counts))
            print(f"{name}: {rows[name][-1]}", flush=True)
        shutil.rmtree(folder / "without")
        shutil.rmtree(folder / "with")
    medians = {name: _medians(found) for name, found in rows.items()}
    _print_table(medians)
    return {
        "files": options.files,
        "megabytes": options.megabytes,
        "words": expected["words"],
        "distinct": expected["distinct"],
        "runs": rows,
        "medians": medians,
        "ratios": _ratios(rows),
    }


def _write_texts(folder: Path, options: argparse.Namespace) -> None:
    """Write the texts, all of about the same size."""
    size_bytes = options.megabytes * 10**6 // options.files
    paths = [folder / f"{number:06}.txt" for number in range(options.files)]
    if options.text is not None:
        lines = _english_lines(options.text)
        for path in paths:
            _write(path, lines, size_bytes)
        return
    with Pool() as pool:
        pool.starmap(_write_invented, [(path, number, size_bytes) for number, path in enumerate(paths)], chunksize=1)


def _write_invented(path: Path, seed: int, size_bytes: int) -> None:
    words = zipf_words(random.Random(seed))
    _write(path, iter(lambda: " ".join(islice(words, WORDS_PER_LINE)) + "\n", None), size_bytes)


def _write(path: Path, lines: Iterator[str], size_bytes: int) -> None:
    with path.open("wb") as file:
        while file.tell() < size_bytes:
            file.write(next(lines).encode())


def _english_lines(folder: Path) -> Iterator[str]:
    """Yield the lines of the texts in a folder, again and again. Links to them are left out."""
    texts = [text for path in sorted({path.resolve() for path in folder.rglob("*")}) if (text := _text(path))]
    if not texts:
        raise RuntimeError(f"{folder} has no texts")
    print(f"{len(texts):,} English texts with {sum(map(len, texts)):,} characters", flush=True)
    while True:
        for text in texts:
            yield from text.splitlines(keepends=True)


def _text(path: Path) -> str:
    """Return the text of a file, "" if it is something else."""
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in TEXT_SUFFIXES or path.name.lower().startswith(NO_ENGLISH) or not path.is_file():
        return ""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError):
        return ""
    return "" if set("\0\x02") & set(text) else f"{text}\n"


def _write_changed(texts: Path, folder: Path) -> None:
    """Copy the texts, and change some of them."""
    shutil.copytree(texts, folder)
    paths = sorted(folder.iterdir())
    for path in random.Random(0).sample(paths, max(1, round(CHANGED_SHARE * len(paths)))):
        with path.open("a") as file:
            file.write("the words that the second night adds\n")


def _expected(texts: Path, folder: Path, environment: Mapping[str, str], options: argparse.Namespace) -> Found:
    output = folder / "exact"
    command = [sys.executable, str(CORPUS_WAY), "exact", str(texts), str(output), str(options.num_words)]
    subprocess.run(command, env=dict(environment), check=True)
    found: Found = json.loads(output.read_text())
    return found


def _other_ways(
    texts: Path, output: Path, environment: Mapping[str, str], options: argparse.Namespace
) -> dict[str, list[str]]:
    """Return the command of each way that is installed."""

    def command(way: str, *pythons: str) -> list[str]:
        script = [str(CORPUS_WAY), way, str(texts), str(output), str(options.num_words)]
        return next(([python, *script] for python in pythons if _has_module(python, way, environment)), [])

    shell = SHELL.format(folder=shlex.quote(str(texts)), number=options.num_words, output=shlex.quote(str(output)))
    return {
        "DuckDB": command("duckdb", options.python, sys.executable),
        "Polars": command("polars", options.python, sys.executable),
        "tr, sort, uniq, sort": ["sh", "-c", shell],
        "multiprocessing": command("multiprocessing", sys.executable),
    }


def _has_module(python: str, module: str, environment: Mapping[str, str]) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code], env=dict(environment), check=False).returncode == 0


def _run_other(command: Sequence[str], output: Path, environment: Mapping[str, str], expected: Found) -> Found:
    """Run another way; return {} if it is not installed."""
    if not command:
        return {}
    _, found = _run(command, environment)
    text = output.read_text()
    # `uniq -c` writes the count first. A word may contain other white space.
    rows = [line.lstrip().partition(" ")[::-2] for line in text.split("\n") if line]
    words = json.loads(text) if text.startswith("[[") else rows
    found |= _compared([(word, int(count)) for word, count in words], expected)
    return found


def _run_topn(
    texts: Path, folder: Path, environment: Mapping[str, str], options: argparse.Namespace, expected: Found | None
) -> Found:
    """Run topn with servers of its own, with a corpus if its counts are expected.

    The second run with a folder knows the results of the first.
    """
    own = {**environment, "TOPN_STATE": str(folder / "state"), "HOME": str(folder)}
    if not folder.exists():
        folder.mkdir()
        # The first run would compile the word counter.
        subprocess.run([sys.executable, "-c", BUILD_PACKAGE, str(folder / "package")], env=own, check=True)
    log = folder / "node-programs"
    log.unlink(missing_ok=True)
    kind = "no-corpus" if expected is None else "corpus"
    arguments = [str(texts), str(folder / "results"), str(options.num_words), str(log), kind]
    output, found = _run([sys.executable, "-m", "bench.corpus_client", *arguments], own)
    programs = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
    found |= json.loads(output)
    node_cpu_seconds = sum(cpu for cpu, _ in programs)
    found |= {
        # The launcher of the local Azure starts programs on nodes, and is killed. Then the kernel does not add their times.
        "cpu_seconds": found["cpu_seconds"] + node_cpu_seconds,
        "node_cpu_seconds": node_cpu_seconds,
        "node_peak_mib": max(peak for _, peak in programs),
    }
    if expected is not None:
        document = json.loads((folder / "results" / "corpus.json").read_text())
        found |= _compared([(word, count) for word, count in document["top"]], expected)
        if (document["words"], document["distinct"]) != (expected["words"], expected["distinct"]):
            raise RuntimeError(f"The totals differ: {document['words']}, {document['distinct']}")
    return found


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, Found]:
    """Run a command; return its output, and the figures of all processes that it has started."""
    stdout, figures = run_measured(TREE, command, environment)
    return stdout, dict(zip(("wall_seconds", "cpu_seconds", "peak_mib"), figures, strict=True))


def _compared(words: Sequence[tuple[str, int]], expected: Found) -> Found:
    """Return how many of the words are missing or have another count. Those with the last count may be any of equal ones."""
    exact = dict(expected["top"])
    last = min(exact.values())
    found = {word for word, count in words if exact.get(word) == count}
    missing = {word for word, count in exact.items() if count > last} - found
    return {"compared": len(words), "wrong": max(len(words) - len(found), len(missing))}


def _medians(runs: Sequence[Found]) -> Found:
    return {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}


def _print_table(medians: Mapping[str, Found]) -> None:
    columns = {
        "wall_seconds": "wall s",
        "cpu_seconds": "CPU s",
        "node_cpu_seconds": "CPU s of node programs",
        "peak_mib": "peak MiB",
        "node_peak_mib": "peak MiB of node programs",
        "task_seconds": "s of Batch tasks",
        "batch_tasks": "Batch tasks",
        "wrong": "wrong words",
    }
    print("|".join(("", "", *columns.values(), "")))
    print("|---|" + "--:|" * len(columns))
    for name, found in medians.items():
        cells = [f"{found[column]:,g}" if column in found else "" for column in columns]
        print("|".join(("", name, *(cells if found else ["not installed", *cells[1:]]), "")))


def _ratios(rows: Mapping[str, Sequence[Found]]) -> Found:
    """Return the medians of ratios of runs of the same round."""
    ratios: Found = {}
    for ours, other in (("topn, first night", "topn, without corpus"), ("topn, second night", "topn, first night")):
        ratios[f"{ours} / {other}"] = found = {
            figure: round(
                statistics.median(a[figure] / b[figure] for a, b in zip(rows[ours], rows[other], strict=True)), 3
            )
            for figure in ("wall_seconds", "cpu_seconds", "node_cpu_seconds", "task_seconds")
        }
        print(f"{ours} / {other}: {found}")
    return ratios
