"""Packs: many files in one Batch task, each with its own verdict."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_reports import input_file

from tasks.collect import collect_chunk
from tasks.models import BatchTaskOutcome, Category, Pack, StoredResult
from tasks.packs import endings
from tasks.plan import MOST_PACK_BYTES, pack_size, packs_of
from tasks.results_store import FolderStore
from tasks.stage import stage_chunk
from tasks.submit import submit_chunk
from tasks.word_counts import counts_of
from tasks.workload import Workload

OUTCOME = BatchTaskOutcome(task_id="p-1", state="completed", result="success", exit_code=0)


@pytest.fixture
def work(batch, blobs, run, workload, parts, watch_chunk, chunk_factory, tmp_path):
    """Work on contents as one pack; returns the verdicts in their order."""
    containers, job = parts

    def do(*contents, workload=workload, before_staging=lambda: None):
        chunk = chunk_factory(*contents, packed=True)
        before_staging()
        staged = stage_chunk(blobs, chunk, workload, containers)
        submitted = submit_chunk(batch, blobs, run, staged, job, workload, containers)
        finished = watch_chunk(submitted, job, containers)
        assert len(finished.outcomes) == 1
        verdicts = collect_chunk(blobs, FolderStore(tmp_path / "store"), finished, job, workload, containers)
        return [verdicts[file.content_key] for file in chunk.files]

    return do


def shell(command):
    return Workload(name="shell", command=command, outputs=("out.txt",))


def test_one_bad_file_in_a_pack_fails_alone(work):
    good, bad, other = work(b"one two two", b"abc\xffdef", b"three")
    assert counts_of(good).top == (("two", 2), ("one", 1))
    assert counts_of(other).top == (("three", 1),)
    assert good.provenance.task_id == other.provenance.task_id
    assert good.provenance.task_id.startswith("p-")
    assert (bad.category, bad.exit_code, bad.attempts) == (Category.INPUT, 1, 1)
    assert bad.message.startswith("1.txt is not UTF-8 text")


def test_only_the_file_whose_command_fails_is_worked_on_again(work):
    command = "echo run >>runs.txt; cp runs.txt out.txt; cat input >&2; grep -q good input"
    good, bad, other = work(b"good 1", b"bad", b"good 2", workload=shell(command))
    assert good.outputs == other.outputs == {"out.txt": b"run\n"}
    assert (bad.category, bad.exit_code, bad.attempts, bad.stderr) == (Category.PROGRAM, 1, 2, "bad")


def test_an_output_may_have_any_plain_name(work):
    names = ("exit.txt", "end.txt", "done", "results.tar", "command.sh")
    own = Workload(name="own", command="; ".join(f"cp input {name}" for name in names), outputs=names)
    first, _ = work(b"1", b"2", workload=own)
    assert first.outputs == dict.fromkeys(names, b"1")


def test_a_file_that_fails_once_has_its_result(work):
    [verdict, _] = work(b"1", b"2", workload=shell("[ -e again ] && exec cp input out.txt; >again; exit 3"))
    assert verdict.outputs == {"out.txt": b"1"}


def test_a_file_without_its_output_has_no_result(work):
    good, bad = work(b"good", b"bad", workload=shell("grep good input >out.txt || rm out.txt"))
    assert isinstance(good, StoredResult)
    assert bad.category is Category.UPLOAD


def test_what_was_done_is_kept_when_a_file_takes_the_pack_down(work):
    verdicts = work(
        *(f"kept {n}".encode() for n in range(5)),
        workload=shell(
            # The shell of the pack itself, when two files are done.
            "[ $(ls -d ../*/.done 2>/dev/null | wc -l) -ge 2 ] && kill -9 $$; cp input out.txt"
        ),
    )
    kept = [verdict for verdict in verdicts if isinstance(verdict, StoredResult)]
    lost = [verdict for verdict in verdicts if not isinstance(verdict, StoredResult)]
    assert (len(kept), len(lost)) == (2, 3)
    assert {verdict.category for verdict in lost} == {Category.PROGRAM}


def test_a_file_that_changed_or_vanished_after_it_was_hashed_is_left_out_of_its_pack(work, tmp_path):
    def change():
        (tmp_path / "1.txt").write_bytes(b"longer than it was")
        (tmp_path / "2.txt").write_bytes(b"s")
        (tmp_path / "3.txt").unlink()

    kept, *changed = work(b"kept", b"longer", b"shorter", b"vanished", before_staging=change)
    assert isinstance(kept, StoredResult)
    assert {verdict.category for verdict in changed} == {Category.INPUT}
    assert [verdict.message.partition(" ")[0] for verdict in changed] == ["1.txt", "2.txt", "3.txt"]


def test_what_a_program_says_comes_back_in_bounded_length(work):
    [verdict, _] = work(b"1", b"2", workload=shell("yes | head -c 1000000; echo last; exit 1"))
    assert verdict.stdout.endswith("last")
    assert len(verdict.stdout) < 5000


def archive_of(*files, members=()):
    """What a node brings back, and after that what somebody else put there."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            for name, text in ((".exit", b"0 1\n"), ("out.txt", file.name.encode())):
                member = tarfile.TarInfo(f"{file.content_key[:32]}/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
        for member, text in members:
            archive.addfile(member, io.BytesIO(text))
    return content.getvalue()


def hostile_archive(*members):
    return archive_of(*a_pack(1).files, members=members)


def a_pack(count):
    return Pack.of([input_file(number) for number in range(count)])


@given(st.integers(0, 20_000))
def test_an_archive_that_ends_in_the_middle_gives_what_is_whole(cut_at):
    pack = a_pack(8)
    found = endings(archive_of(*pack.files)[:cut_at], pack, OUTCOME)
    for file in pack.files:
        if file.content_key in found and "out.txt" in found[file.content_key][1]:
            assert found[file.content_key][1]["out.txt"] == file.name.encode()
    if cut_at >= len(archive_of(*pack.files)):
        assert len(found) == 8


@given(st.binary(max_size=2000))
def test_bytes_that_are_no_archive_are_no_results(content):
    assert endings(content, a_pack(2), OUTCOME) == {}


def a_member(name, kind=tarfile.REGTYPE, text=b"", **attributes):
    member = tarfile.TarInfo(name)
    member.type = kind
    member.size = len(text)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    return member, text


FOLDER = a_pack(1).files[0].content_key[:32]


@pytest.mark.parametrize(
    ("member", "text"),
    [
        a_member(f"../{FOLDER}/out.txt", text=b"evil"),
        a_member(f"/{FOLDER}/out.txt", text=b"evil"),
        a_member(f"./{FOLDER}/../out.txt", text=b"evil"),
        a_member(f"{FOLDER}/../../out.txt", text=b"evil"),
        a_member(f"{FOLDER}/sub/out.txt", text=b"evil"),
        a_member("f" * 32 + "/out.txt", text=b"evil"),
        *(
            a_member(f"{FOLDER}/out.txt", kind, linkname="/etc/passwd")
            for kind in (
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.BLKTYPE,
                tarfile.FIFOTYPE,
                tarfile.DIRTYPE,
            )
        ),
        # Of sizes that nobody has, told in few bytes.
        a_member(f"{FOLDER}/out.txt", pax_headers={"GNU.sparse.size": str(1 << 50), "GNU.sparse.map": "0,0"}),
        a_member(f"{FOLDER}/out.txt", pax_headers={"size": str(1 << 62)}),
        a_member(f"{FOLDER}/out.txt", pax_headers={"size": "-1024"}),
        a_member(f"{FOLDER}/out.txt", tarfile.GNUTYPE_SPARSE),
    ],
)
def test_a_member_that_means_harm_is_no_output(member, text, tmp_path):
    before = sorted(tmp_path.iterdir())
    found = endings(hostile_archive((member, text)), a_pack(1), OUTCOME)
    [(outcome, left)] = found.values()
    assert (outcome.exit_code, left["out.txt"]) == (0, b"file0.txt")
    assert sorted(tmp_path.iterdir()) == before


def test_a_member_that_leads_back_ends_the_archive():
    """Its size is below zero, so that what comes after it would be what came before, for ever."""
    head = bytearray(hostile_archive(a_member("x/y", text=b"")))
    at = head.index(b"x/y\0")
    for offset_back in (512, at + 512):
        head[at + 124 : at + 136] = (-offset_back).to_bytes(12, "big", signed=True)
        head[at + 148 : at + 156] = b" " * 8
        head[at + 148 : at + 156] = b"%06o\0 " % sum(head[at : at + 512])
        assert len(endings(bytes(head), a_pack(1), OUTCOME)) == 1


@given(st.data())
def test_no_archive_ends_a_run_or_keeps_it(data):
    """A header may be anything, and have the right checksum."""
    content = bytearray(hostile_archive(a_member("x/" + "y" * 200, text=b"z", pax_headers={"comment": "é"})))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) // 512 - 1)) * 512
        written = data.draw(st.binary(min_size=1, max_size=14))
        offset = at + data.draw(st.sampled_from([0, 100, 124, 136, 148, 156, 157, 257, 345, 386, 482]))
        content[offset : offset + len(written)] = written
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    endings(bytes(content), a_pack(1), OUTCOME)


@pytest.mark.parametrize("written", [b"", b"0", b"x 1\n", b"0 1 2\n", b"-1 1\n", b"9" * 5000 + b" 1\n"])
def test_an_ending_that_is_none_is_no_result(written):
    pack = a_pack(1)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo(f"{pack.files[0].content_key[:32]}/.exit")
        member.size = len(written)
        archive.addfile(member, io.BytesIO(written))
    assert endings(content.getvalue(), pack, OUTCOME) == {}


@given(st.lists(st.integers(0, MOST_PACK_BYTES * 2), max_size=300), st.one_of(st.none(), st.integers(1, 50)))
def test_each_file_is_in_one_pack_in_its_order(sizes, files_per_task):
    files = [replace(input_file(number), size_bytes=size) for number, size in enumerate(sizes)]
    packs = packs_of(files, files_per_task)
    assert [file for pack in packs for file in pack.files] == files
    assert all(pack.files for pack in packs)
    assert len({pack.task_id for pack in packs}) == len(packs)
    assert all(len(pack.files) <= (files_per_task or pack_size(len(files))) for pack in packs)


def test_packs_are_made_where_there_are_many_files_and_no_pack_is_heavy():
    assert [pack_size(count) for count in (0, 1, 1000, 1001, 100_000, 10_000_000)] == [1, 1, 1, 2, 100, 100]
    files = [replace(input_file(number), size_bytes=MOST_PACK_BYTES // 3) for number in range(100_000)]
    packs = packs_of(files, None)
    assert {len(pack.files) for pack in packs} == {3, 1}
    assert len(packs_of([replace(file, size_bytes=1000) for file in files], None)) == 1000
