"""`python -m simulation.mutate`: apply each listed mutation to the product, and find the first seed that fails."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from simulation.mutations import MUTATIONS, Mutation

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("flows", "tasks", "task_script", "localbatch/src", "tests/simulation")


def main(argv: Sequence[str] | None = None) -> int:
    """Try each mutation; return 1 if one is not found."""
    parser = argparse.ArgumentParser(prog="simulation.mutate", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=500, metavar="N", help="number of seeds per mutation (default: 500)"
    )
    parser.add_argument("areas", nargs="*", metavar="AREA", help="mutations to try, such as cleanup (default: all)")
    options = parser.parse_args(argv)
    missed = 0
    for mutation in MUTATIONS:
        if options.areas and mutation.area not in options.areas:
            continue
        found = seeds_until_found(mutation, options.seeds)
        missed += found is None
        print(f"{mutation.area}: {'not found' if found is None else f'found by {found}'}", flush=True)
    return 1 if missed else 0


def seeds_until_found(mutation: Mutation, seeds: int) -> str | None:
    """Play seeds on a mutated copy of the project until one fails; return its line of output."""
    with tempfile.TemporaryDirectory(prefix="topn-mutation-") as folder:
        root = Path(folder)
        for package in PACKAGES:
            shutil.copytree(REPOSITORY / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
        path = root / mutation.path
        text = path.read_text()
        if text.count(mutation.before) != 1:
            raise ValueError(f"{mutation.before!r} occurs {text.count(mutation.before)} times in {mutation.path}.")
        path.write_text(text.replace(mutation.before, mutation.after))
        done = subprocess.run(
            [sys.executable, "-m", "simulation", f"--seeds={seeds}", "--fail-fast"],
            cwd=root,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (root, root / "tests", root / "localbatch/src"))),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    match = re.search(r"^(seed \d+: .*)$", done.stdout, re.MULTILINE)
    if match is None and done.returncode != 0:
        raise RuntimeError(done.stderr)
    return match[1][:200] if match else None


if __name__ == "__main__":
    sys.exit(main())
