"""The package of the word count workload."""

from __future__ import annotations

import subprocess
import sys

from tasks.workload.word_counts import parse_counts, word_count_workload


def test_package_runs_alone_with_any_python(tmp_path):
    workload = word_count_workload(2, ignore_case=True)
    [(name, package)] = workload.files.items()
    (tmp_path / name).write_bytes(package)
    (tmp_path / "input.txt").write_text("B b a")
    command = [sys.executable, "-I", "-S", name, "input.txt", *workload.arguments]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert parse_counts((tmp_path / "input_OUTPUT.json").read_bytes()).top == (("b", 2), ("a", 1))
