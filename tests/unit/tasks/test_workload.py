"""User-defined workloads: validation, and the hash of what a result depends on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_reports import PROVENANCE, input_file

from tasks.errors import ConfigurationError
from tasks.model.outputs import Output, Outputs
from tasks.model.verdict import StoredResult
from tasks.workload.base import Corpus, Merge, Workload
from tasks.workload.results_store import FolderStore

LINES = Workload(name="lines", command="wc -l < input > lines.txt", outputs=("lines.txt",))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "Lines"}, "'Lines'"),
        ({"name": ""}, "''"),
        ({"outputs": ()}, "lines needs outputs"),
        ({"outputs": ("input",)}, "input, stdout.txt, stderr.txt"),
        ({"outputs": ("stderr.txt",)}, "other names"),
        ({"outputs": ("../above",)}, "'../above' of workload lines"),
        ({"outputs": ("*.txt",)}, "is not valid"),
        ({"files": {"a b": b""}}, "'a b'"),
        ({"files": {"-rf": b""}}, "'-rf'"),
        ({"environment": {"A B": ""}}, "'A B'"),
        ({"environment": {"1": ""}}, "'1'"),
        ({"environment": {"FILES": "x"}}, "'FILES'"),
        ({"environment": {"AZ_BATCH_TASK_ID": "x"}}, "'AZ_BATCH_TASK_ID'"),
        ({"required_slots": 0}, "lines needs positive numbers"),
        ({"task_minutes": 0}, "lines needs positive numbers"),
    ],
)
def test_invalid_names_are_rejected_by_name(change, named):
    with pytest.raises(ConfigurationError) as refusal:
        replace(LINES, **change)
    assert named in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        {"command": "wc -w < input > lines.txt"},
        {"outputs": ("a", "lines.txt")},
        {"files": {"a": b"1"}},
        {"environment": {"A": ""}},
    ],
)
def test_hash_covers_inputs_of_result(change):
    assert replace(LINES, **change).sha256 != LINES.sha256


def test_hash_ignores_display_options():
    assert replace(LINES, name="other", done="weighed", task_minutes=1, required_slots=2).sha256 == LINES.sha256


def test_repeat_command_sets_variables():
    command = replace(LINES, environment={"A": "b c"}).repeat_command(input_file(1))
    assert command == "cp /data/file1.txt input && export FILES=. A='b c' && wc -l < input > lines.txt"


@given(st.dictionaries(st.text(), st.binary()))
def test_arbitrary_outputs_are_stored_unchanged(tmp_path_factory, outputs):
    store = FolderStore(tmp_path_factory.mktemp("store"))
    result = StoredResult(outputs=Outputs.of(outputs), provenance=PROVENANCE)
    store.put("key", result)
    assert store.get("key") == result


def test_default_columns_show_outputs_plainly():
    result = StoredResult(outputs=Outputs.of({"lines.txt": b"3\nrest", "raw": b"\xff\x1b[31m"}), provenance=PROVENANCE)
    assert LINES.columns(input_file(1), result) == {"lines.txt": "3", "raw": "\ufffd\\x1b[31m"}
    assert LINES.documents(input_file(1), result) == {
        ".lines.txt": Output.of(b"3\nrest"),
        ".raw": Output.of(b"\xff\x1b[31m"),
    }
    assert (
        LINES.figures([(input_file(1), result)]),
        LINES.picture([], None),
        LINES.output_error(input_file(1), {}),
    ) == (
        [],
        None,
        None,
    )


def test_default_corpus_shows_outputs_plainly():
    merge = Merge(command="cat", corpus_command="cat", outputs=("lines.txt", "raw"))
    workload = replace(LINES, merge=merge)
    outputs = Outputs.of({"lines.txt": b"3\nrest", "raw": b"\xff\x1b[31m"})
    corpus = Corpus(result=StoredResult(outputs=outputs, provenance=PROVENANCE), files=(input_file(1),))
    assert workload.corpus_line(corpus) == "3, \ufffd\\x1b[31m"
    assert workload.corpus_names == tuple(workload.corpus_documents(corpus)) == ("corpus.lines.txt", "corpus.raw")
    assert (workload.corpus_rows(corpus), workload.corpus_error({}), LINES.corpus_names) == ([], "", ())


@pytest.mark.parametrize("name", ["../partial", "input", "stdout.txt", ""])
def test_names_of_merge_are_checked(name):
    with pytest.raises(ConfigurationError):
        replace(LINES, merge=Merge(command="", corpus_command="", outputs=("lines.txt",), partial=name))
    with pytest.raises(ConfigurationError):
        replace(LINES, merge=Merge(command="", corpus_command="", outputs=(name,)))
