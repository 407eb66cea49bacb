"""The workload: its package, what comes back, and how that is written."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from task_script.top_words import Summary, render_text
from tasks.models import Provenance, StoredResult, WordCounts
from tasks.word_counts import as_text, parse_counts, word_count_workload, write_whole

GOOD = {"sha256": "00", "bytes": 5, "words": 2, "distinct": 2, "top": [["a", 1], ["b", 1]]}


def test_the_package_runs_alone_with_any_python(tmp_path):
    workload = word_count_workload(2, ignore_case=True)
    (tmp_path / workload.package_name).write_bytes(workload.package)
    (tmp_path / "input").write_text("B b a")
    command = [sys.executable, "-I", "-S", workload.package_name, "input", *workload.arguments]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert parse_counts((tmp_path / "input_OUTPUT.json").read_bytes()).top == (("b", 2), ("a", 1))


@pytest.mark.parametrize(
    "change",
    [
        {"words": "2"},
        {"words": True},
        {"top": [["a", "1"]]},
        {"top": [["a"]]},
        {"top": None},
        {"sha256": None},
        {"distinct": 1.5},
    ],
)
def test_an_output_of_another_shape_is_refused(change):
    with pytest.raises(ValueError, match="not an output of the task script"):
        parse_counts(json.dumps(GOOD | change).encode())


def test_an_output_that_lacks_something_is_refused():
    for name in GOOD:
        with pytest.raises(ValueError, match="not an output"):
            parse_counts(json.dumps({key: value for key, value in GOOD.items() if key != name}).encode())


@pytest.mark.parametrize("top", [(), (("the", 120), ("a\x1b", 7))])
def test_the_text_here_is_the_text_of_the_node(top):
    provenance = Provenance(node_id="n", task_id="t", job_id="j", pool_id="p")
    counts = WordCounts(sha256="00", size_bytes=1, words=1, distinct=1, top=top)
    environment = {f"AZ_BATCH_{name}_ID": name[0].lower() for name in ("NODE", "TASK", "JOB", "POOL")}
    on_node = render_text(Summary("input", "00", 1, 1, 1, list(top)), environment)
    assert as_text(StoredResult(counts=counts, provenance=provenance)) == on_node


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "below" / "file"
    write_whole(target, b"first")
    with pytest.raises(TypeError):
        write_whole(target, "no bytes")
    assert target.read_bytes() == b"first"
    assert [path.name for path in target.parent.iterdir()] == ["file"]
