"""Packs: several files in one Batch task, each with its own verdict."""

from __future__ import annotations

import pytest

from tasks.model.verdict import Category, StoredResult
from tasks.workload.base import Workload
from tasks.workload.word_counts import counts_of


@pytest.fixture
def work(process, chunk_factory):
    """Return a function that runs contents as one pack and returns their verdicts in order."""

    def do(*contents, before_staging=lambda: None, **options):
        chunk = chunk_factory(*contents, packed=True)
        before_staging()
        finished, verdicts = process(chunk, **options)
        assert len(finished.outcomes) == 1
        return verdicts

    return do


def shell(command):
    return Workload(name="shell", command=command, outputs=("out.txt",))


def test_bad_file_in_pack_fails_alone(work):
    good, bad, other = work(b"one two two", b"abc\xffdef", b"three")
    assert counts_of(good).top == (("two", 2), ("one", 1))
    assert counts_of(other).top == (("three", 1),)
    assert good.provenance.task_id == other.provenance.task_id
    assert good.provenance.task_id.startswith("p-")
    assert (bad.category, bad.exit_code, bad.attempts) == (Category.INPUT, 1, 1)
    assert bad.message.startswith("1.txt is not UTF-8 text")


def test_only_failed_file_is_retried(work):
    command = "echo run >>runs.txt; cp runs.txt out.txt; cat input >&2; grep -q good input"
    good, bad, other = work(b"good 1", b"bad", b"good 2", workload=shell(command))
    assert good.outputs == other.outputs == {"out.txt": b"run\n"}
    assert (bad.category, bad.exit_code, bad.attempts, bad.stderr) == (Category.PROGRAM, 1, 2, "bad")


def test_output_may_have_any_plain_name(work):
    names = ("exit.txt", "end.txt", "done", "results.tar", "command.sh")
    own = Workload(name="own", command="; ".join(f"cp input {name}" for name in names), outputs=names)
    first, _ = work(b"1", b"2", workload=own)
    assert first.outputs == dict.fromkeys(names, b"1")


def test_file_succeeds_on_second_attempt(work):
    [verdict, _] = work(b"1", b"2", workload=shell("[ -e again ] && exec cp input out.txt; >again; exit 3"))
    assert verdict.outputs == {"out.txt": b"1"}


def test_file_without_output_has_no_result(work):
    good, bad = work(b"good", b"bad", workload=shell("grep good input >out.txt || rm out.txt"))
    assert isinstance(good, StoredResult)
    assert bad.category is Category.UPLOAD


def test_crashed_pack_keeps_finished_files(work):
    verdicts = work(
        *(f"kept {n}".encode() for n in range(5)),
        workload=shell(
            # Kill the shell of the pack once two files are done.
            "[ $(ls -d ../*/.exit 2>/dev/null | wc -l) -ge 2 ] && kill -9 $$; cp input out.txt"
        ),
    )
    kept = [verdict for verdict in verdicts if isinstance(verdict, StoredResult)]
    lost = [verdict for verdict in verdicts if not isinstance(verdict, StoredResult)]
    assert (len(kept), len(lost)) == (2, 3)
    assert {verdict.category for verdict in lost} == {Category.PROGRAM}


def test_changed_and_deleted_files_leave_their_pack(work, tmp_path):
    def change():
        (tmp_path / "1.txt").write_bytes(b"longer than it was")
        (tmp_path / "2.txt").write_bytes(b"s")
        (tmp_path / "3.txt").unlink()

    kept, *changed = work(b"kept", b"longer", b"shorter", b"vanished", before_staging=change)
    assert isinstance(kept, StoredResult)
    assert {verdict.category for verdict in changed} == {Category.INPUT}
    assert [verdict.message.partition(" ")[0] for verdict in changed] == ["1.txt", "2.txt", "3.txt"]


def test_program_output_is_truncated(work):
    [verdict, _] = work(b"1", b"2", workload=shell("yes | head -c 1000000; echo last; exit 1"))
    assert verdict.stdout.endswith("last")
    assert len(verdict.stdout) < 5000
