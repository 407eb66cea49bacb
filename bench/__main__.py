"""The benchmarks: ratios within one run of interleaved rounds, medians and spread. `make bench` runs them all.

The machine's own speed changes from minute to minute; the ratio of two commands that ran next to each other does not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
ROUNDS = 5


def main() -> int:
    """Run every benchmark, print its ratios, and write them down."""
    RESULTS.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TOPN_", "PREFECT_"))}
    with tempfile.TemporaryDirectory(prefix="topn-bench-") as folder:
        figures = three_files_against_an_empty_flow(Path(folder), environment)
        nothing_new = three_files_against_an_empty_flow(Path(folder), environment, nothing_new=True)
    (RESULTS / "run.json").write_text(json.dumps(figures, indent=2) + "\n")
    (RESULTS / "nothing-new.json").write_text(json.dumps(nothing_new, indent=2) + "\n")
    return 0


def three_files_against_an_empty_flow(
    folder: Path, environment: Mapping[str, str], *, nothing_new: bool = False
) -> dict[str, object]:
    """Compare `topn run` on three files with an empty flow, both started from nothing, after one warm-up."""
    texts = sorted(str(path) for path in (REPOSITORY / "data").glob("human_rights_*.txt"))
    topn = [sys.executable, "-m", "flows.cli", "run", "--json", "--output", str(folder / "out"), *texts]
    topn += [] if nothing_new else ["--refresh"]
    empty = [sys.executable, str(REPOSITORY / "bench" / "empty_flow.py"), str(folder / "empty")]
    environment = {**environment, "TOPN_STATE": str(folder / "topn"), "HOME": str(folder)}
    title = "topn run on 3 unchanged files" if nothing_new else "topn run on 3 files"
    return compare(f"{title} / empty flow", topn, empty, environment)


def compare(title: str, ours: Sequence[str], other: Sequence[str], environment: Mapping[str, str]) -> dict[str, object]:
    """Time two commands in turn; each must succeed.

    Returns:
        Seconds and ratios, round by round, with medians.
    """
    pairs = [(_seconds(ours, environment), _seconds(other, environment)) for _ in range(ROUNDS + 1)][1:]
    ratios = [a / b for a, b in pairs]
    print(
        f"{title}: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f} in {ROUNDS} rounds; "
        f"medians {statistics.median(a for a, _ in pairs):.1f} s and {statistics.median(b for _, b in pairs):.1f} s)"
    )
    return {
        "title": title,
        "ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ours_seconds": [round(a, 2) for a, _ in pairs],
        "other_seconds": [round(b, 2) for _, b in pairs],
    }


def _seconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    started = time.monotonic()
    subprocess.run(command, env=dict(environment), check=True, capture_output=True)
    return time.monotonic() - started


if __name__ == "__main__":
    raise SystemExit(main())
