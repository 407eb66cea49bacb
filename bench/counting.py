"""Compare the speed of the task script with a plain C program, its own Python, the tutorial, and `wc -w`."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path

from bench.measure import figures, in_turn, median_seconds

BUILD_PACKAGE = """
import sys, pathlib, tasks.workload.word_counts
[package] = tasks.workload.word_counts.word_count_workload(10, ignore_case=False).files.values()
pathlib.Path(sys.argv[1]).write_bytes(package)
"""

SIZES_MB = (1, 8, 32)
SMALL_FILE = "the cat and the dog\n" * 100

SYLLABLES = [
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "je",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "ri",
    "so",
    "tu",
    "va",
    "we",
    "xi",
    "yo",
    "zé",
]
SUFFIXES = [""] * 18 + [",", "."]

TUTORIAL = Path(__file__).parent / "tutorial_way.py"
PLAIN_C = Path(__file__).parent / "plain_counter.c"


def counting(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Count texts of three sizes with the packed task script, and check its results against those of the tutorial."""
    package = folder / "task_script.pyz"
    environment = {**environment, "TOPN_STATE": str(folder / "state"), "ZIG_GLOBAL_CACHE_DIR": str(folder / "zig")}
    subprocess.run([sys.executable, "-c", BUILD_PACKAGE, str(package)], env=environment, check=True)
    # Nodes do the same, once: it adds byte code.
    subprocess.run([sys.executable, "-I", "-S", str(package), "--check"], check=True)
    plain_c = str(folder / "plain_counter")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-O2", str(PLAIN_C), "-o", plain_c]
    subprocess.run(compiler, env=environment, cwd=folder, check=True)
    options = ["--num-words", "10", "--output-dir", str(folder)]
    script = [sys.executable, "-I", "-S", str(package), *options]

    found: dict[str, object] = {"starting": _starting(folder, script, environment)}
    seconds: dict[str, list[float]] = {}
    for megabytes in SIZES_MB:
        text = folder / f"{megabytes} MB.txt"
        write_text(text, megabytes * 10**6)
        commands = {
            "task script": [*script, str(text)],
            "plain C": [plain_c, str(text)],
            "Python": [sys.executable, "-m", "task_script", *options, str(text)],
            "tutorial": [sys.executable, str(TUTORIAL), str(text), str(folder / "tutorial.json")],
            "wc -w": ["wc", "-w", str(text)],
        }
        print(f"{text.stem}:")
        runs = in_turn(commands, environment)
        _check_equal(folder / f"{text.stem}_OUTPUT.json", folder / "tutorial.json")
        ours, *others = commands
        found[text.stem] = [figures(runs, ours, other) for other in others]
        for name in commands:
            seconds.setdefault(name, []).append(median_seconds(runs[name]))
        text.unlink()
    found["milliseconds_per_mb"] = slopes = {
        name: round(1000 * (medians[-1] - medians[-2]) / (SIZES_MB[-1] - SIZES_MB[-2]), 1)
        for name, medians in seconds.items()
    }
    print("milliseconds per additional MB:", ", ".join(f"{name} {slope:.3g}" for name, slope in slopes.items()))
    return found


def _starting(folder: Path, script: list[str], environment: Mapping[str, str]) -> list[dict[str, object]]:
    small = folder / "small.txt"
    small.write_text(SMALL_FILE)
    commands = {
        "2 KB": [*script, str(small)],
        "tutorial": [sys.executable, str(TUTORIAL), str(small), str(folder / "tutorial.json")],
        "bare interpreter": [sys.executable, "-I", "-S", "-c", "pass"],
        "empty package": [sys.executable, str(_empty_package(folder))],
    }
    runs = in_turn(commands, environment, rounds=15)
    _check_equal(folder / "small_OUTPUT.json", folder / "tutorial.json")
    ours, *others = commands
    return [figures(runs, ours, other) for other in others]


def _empty_package(folder: Path) -> Path:
    path = folder / "empty.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", "")
    return path


def _check_equal(ours: Path, tutorial: Path) -> None:
    mine, other = json.loads(ours.read_text()), json.loads(tutorial.read_text())
    # The tutorial orders words with equal counts by their first occurrence.
    same_top = [count for _, count in mine["top"]] == [count for _, count in other["top"]]
    if not same_top or mine["distinct"] != other["distinct"]:
        raise RuntimeError(f"The results differ: {mine}, {other}")


def write_text(path: Path, size_bytes: int) -> None:
    """Write words with the frequencies and lengths of English words, including rare words."""
    words = zipf_words(random.Random(0))
    with path.open("wb") as file:
        while file.tell() < size_bytes:
            file.write(" ".join(islice(words, 12)).encode() + b"\n")


def zipf_words(rng: random.Random) -> Iterator[str]:
    """Yield words with the frequencies of a Zipf-Mandelbrot distribution with an unlimited vocabulary."""
    while True:
        word = word_of_rank(int(10 * (rng.random() ** (-1 / 0.3) - 1)))
        yield word + rng.choice(SUFFIXES)


@lru_cache(100_000)
def word_of_rank(rank: int) -> str:
    word, number = "", rank + 20
    while number:
        number, digit = divmod(number, len(SYLLABLES))
        word += SYLLABLES[digit]
    return word
