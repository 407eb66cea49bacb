"""Run the benchmarks, print ratios of interleaved rounds, and write all measurements to `bench/results`.

`python -m bench NAME…` runs the named ones: `run`, `nothing-new`, `packing`, `submission`, `staging`, `tutorial`,
`growth`, `counting`, `partials`, `blobs`, `blobs-simulated`, `blobs-million`, `scale`, `tutorial-in-one-pool` and
`corpus`. Without a name, as in `make bench`, it runs all but the last seven, which take up to half an hour each.
`python -m bench --help` shows the options of `corpus`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench.against_tutorial import against_tutorial, against_tutorial_in_one_pool
from bench.blobs import blobs_in_azurite, blobs_in_simulated_storage, million_blobs_in_simulated_storage
from bench.corpus import add_options, corpus
from bench.counting import counting
from bench.growth import growth, scale
from bench.measure import figures, in_turn
from bench.partials import partials
from bench.staging import staging
from bench.submission import submission
from localbatch.processes.installation import azurite_folder

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"

SMALL_FILE_COUNT = 300

# Runs in a folder with an environment, and returns its measurements.
Benchmark = Callable[[Path, Mapping[str, str]], Mapping[str, object]]


def main() -> int:
    """Run the benchmarks that the command line names, or all short ones."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Run benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a benchmark; default: all short ones")
    add_options(parser)
    options = parser.parse_args()
    benchmarks: dict[str, Benchmark] = {
        "run": three_files_against_an_empty_flow,
        "nothing-new": nothing_new_against_an_empty_flow,
        "packing": small_files_in_packs_against_single_files,
        "submission": submission,
        "staging": staging,
        "tutorial": against_tutorial,
        "growth": growth,
        "counting": counting,
    }
    long_benchmarks: dict[str, Benchmark] = {
        "partials": partials,
        "blobs": blobs_in_azurite,
        "blobs-simulated": blobs_in_simulated_storage,
        "blobs-million": million_blobs_in_simulated_storage,
        "scale": scale,
        "tutorial-in-one-pool": against_tutorial_in_one_pool,
        "corpus": partial(corpus, options=options),
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TOPN_", "PREFECT_"))}
    # Benchmarks have home folders of their own; Azurite is installed in that of the user.
    environment["LOCALBATCH_DATA"] = str(azurite_folder().parent)
    # The simulated storage account is that of the tests.
    environment["PYTHONPATH"] = os.pathsep.join(str(REPOSITORY / name) for name in (".", "localbatch/src", "tests"))
    RESULTS.mkdir(exist_ok=True)
    for name in options.names or benchmarks:
        with tempfile.TemporaryDirectory(prefix="topn-bench-") as folder:
            found = {**benchmarks, **long_benchmarks}[name](Path(folder), environment)
        (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0


def three_files_against_an_empty_flow(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare `topn run` on three files with an empty flow. Both start their own servers."""
    return _against_an_empty_flow("topn run on 3 files", ["--refresh"], folder, environment)


def nothing_new_against_an_empty_flow(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare `topn run` on three unchanged files with an empty flow. Both start their own servers."""
    return _against_an_empty_flow("topn run on 3 unchanged files", [], folder, environment)


def small_files_in_packs_against_single_files(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare `topn run` on small files with 100 files per Batch task and with one."""
    names = []
    for number in range(SMALL_FILE_COUNT):
        path = folder / f"{number}.txt"
        path.write_text(" ".join(f"word{number * place % 97}" for place in range(300)))
        names.append(str(path))
    topn = [sys.executable, "-m", "topn_command", "run", "--json", "--refresh", "--output", str(folder / "out")]
    commands = {
        f"{SMALL_FILE_COUNT} small files, {per_task} per Batch task": [*topn, "--files-per-task", str(per_task), *names]
        for per_task in (100, 1)
    }
    runs = in_turn(commands, {**environment, "TOPN_STATE": str(folder / "topn"), "HOME": str(folder)})
    return figures(runs, *commands)


def _against_an_empty_flow(
    title: str, options: list[str], folder: Path, environment: Mapping[str, str]
) -> dict[str, object]:
    texts = sorted(str(path) for path in (REPOSITORY / "data").glob("human_rights_*.txt"))
    topn = [sys.executable, "-m", "topn_command", "run", "--json", *options, "--output", str(folder / "out"), *texts]
    commands = {
        title: topn,
        "empty flow": [sys.executable, str(REPOSITORY / "bench" / "empty_flow.py"), str(folder / "empty")],
    }
    runs = in_turn(commands, {**environment, "TOPN_STATE": str(folder / "topn"), "HOME": str(folder)})
    return figures(runs, title, "empty flow")


if __name__ == "__main__":
    raise SystemExit(main())
