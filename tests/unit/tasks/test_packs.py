"""Packing of files, and reading the results archive of a node."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_reports import input_file

from tasks.model.chunks import Pack
from tasks.model.outputs import Output
from tasks.model.verdict import BatchTaskOutcome
from tasks.steps.plan import MAX_PACK_BYTES, group_into_packs, pack_size
from tasks.workload.packs import file_outcomes

OUTCOME = BatchTaskOutcome(task_id="p-1", state="completed", result="success", exit_code=0)


def archive_of(*files, members=()):
    """Build the results archive of a node for `files`, followed by other `members`."""
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
    return archive_of(*make_pack(1).files, members=members)


def make_pack(count):
    return Pack.of([input_file(number) for number in range(count)])


@given(st.integers(0, 20_000))
def test_truncated_archive_yields_complete_members(cut_at):
    pack = make_pack(8)
    found = file_outcomes(Output.of(archive_of(*pack.files)[:cut_at]), pack, OUTCOME)
    for file in pack.files:
        if file.content_key in found and "out.txt" in found[file.content_key][1]:
            assert found[file.content_key][1]["out.txt"].read() == file.name.encode()
    if cut_at >= len(archive_of(*pack.files)):
        assert len(found) == 8


@given(st.binary(max_size=2000))
def test_invalid_archive_yields_no_results(content):
    assert file_outcomes(Output.of(content), make_pack(2), OUTCOME) == {}


def make_member(name, kind=tarfile.REGTYPE, text=b"", **attributes):
    member = tarfile.TarInfo(name)
    member.type = kind
    member.size = len(text)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    return member, text


FOLDER = make_pack(1).files[0].content_key[:32]


@pytest.mark.parametrize(
    ("member", "text"),
    [
        make_member(f"../{FOLDER}/out.txt", text=b"evil"),
        make_member(f"/{FOLDER}/out.txt", text=b"evil"),
        make_member(f"./{FOLDER}/../out.txt", text=b"evil"),
        make_member(f"{FOLDER}/../../out.txt", text=b"evil"),
        make_member(f"{FOLDER}/sub/out.txt", text=b"evil"),
        make_member("f" * 32 + "/out.txt", text=b"evil"),
        *(
            make_member(f"{FOLDER}/out.txt", kind, linkname="/etc/passwd")
            for kind in (
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.BLKTYPE,
                tarfile.FIFOTYPE,
                tarfile.DIRTYPE,
            )
        ),
        # Small members that claim a huge size.
        make_member(f"{FOLDER}/out.txt", pax_headers={"GNU.sparse.size": str(1 << 50), "GNU.sparse.map": "0,0"}),
        make_member(f"{FOLDER}/out.txt", pax_headers={"size": str(1 << 62)}),
        make_member(f"{FOLDER}/out.txt", pax_headers={"size": "-1024"}),
        make_member(f"{FOLDER}/out.txt", tarfile.GNUTYPE_SPARSE),
    ],
)
def test_hostile_member_is_no_output(member, text, tmp_path):
    before = sorted(tmp_path.iterdir())
    found = file_outcomes(Output.of(hostile_archive((member, text))), make_pack(1), OUTCOME)
    [(outcome, outputs)] = found.values()
    assert (outcome.exit_code, outputs["out.txt"].read()) == (0, b"file0.txt")
    assert sorted(tmp_path.iterdir()) == before


def test_negative_member_size_ends_archive():
    """With a negative size, the reader would go back and loop forever."""
    head = bytearray(hostile_archive(make_member("x/y", text=b"")))
    at = head.index(b"x/y\0")
    for offset_back in (512, at + 512):
        head[at + 124 : at + 136] = (-offset_back).to_bytes(12, "big", signed=True)
        head[at + 148 : at + 156] = b" " * 8
        head[at + 148 : at + 156] = b"%06o\0 " % sum(head[at : at + 512])
        assert len(file_outcomes(Output.of(bytes(head)), make_pack(1), OUTCOME)) == 1


@given(st.data())
def test_corrupt_archive_neither_raises_nor_hangs(data):
    """A corrupt header can still have a valid checksum."""
    content = bytearray(hostile_archive(make_member("x/" + "y" * 200, text=b"z", pax_headers={"comment": "é"})))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) // 512 - 1)) * 512
        written = data.draw(st.binary(min_size=1, max_size=14))
        offset = at + data.draw(st.sampled_from([0, 100, 124, 136, 148, 156, 157, 257, 345, 386, 482]))
        content[offset : offset + len(written)] = written
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    file_outcomes(Output.of(bytes(content)), make_pack(1), OUTCOME)


@pytest.mark.parametrize("written", [b"", b"0", b"x 1\n", b"0 1 2\n", b"-1 1\n", b"9" * 5000 + b" 1\n"])
def test_malformed_exit_file_is_no_result(written):
    pack = make_pack(1)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo(f"{pack.files[0].content_key[:32]}/.exit")
        member.size = len(written)
        archive.addfile(member, io.BytesIO(written))
    assert file_outcomes(Output.of(content.getvalue()), pack, OUTCOME) == {}


@given(st.lists(st.integers(0, MAX_PACK_BYTES * 2), max_size=300), st.one_of(st.none(), st.integers(1, 50)))
def test_each_file_is_packed_once_in_order(sizes, files_per_task):
    files = [replace(input_file(number), size_bytes=size) for number, size in enumerate(sizes)]
    packs = group_into_packs(files, files_per_task)
    assert [file for pack in packs for file in pack.files] == files
    assert all(pack.files for pack in packs)
    assert len({pack.task_id for pack in packs}) == len(packs)
    assert all(len(pack.files) <= (files_per_task or pack_size(len(files))) for pack in packs)


def test_pack_size_grows_with_files_and_is_bounded():
    assert [pack_size(count) for count in (0, 1, 1000, 1001, 100_000, 10_000_000)] == [1, 1, 1, 2, 100, 100]
    files = [replace(input_file(number), size_bytes=MAX_PACK_BYTES // 3) for number in range(10_000)]
    packs = group_into_packs(files, None)
    assert {len(pack.files) for pack in packs} == {3, 1}
    assert len(group_into_packs([replace(file, size_bytes=1000) for file in files], None)) == 1000


def test_urls_of_pack_fit_into_request():
    blob = replace(input_file(1), path="https://a.blob.core.windows.net/texts/" + "%E6%97%A5" * 1024, etag="0x1")
    packs = group_into_packs([replace(blob, content_key=str(number)) for number in range(1000)], 1000)
    assert sum(len(pack.files) for pack in packs) == 1000
    assert max(sum(len(file.path) for file in pack.files) for pack in packs) < 900_000
