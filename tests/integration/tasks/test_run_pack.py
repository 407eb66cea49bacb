"""The script that runs a pack on a node, in real processes and without a node."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest
from run_reports import written_file

from tasks.model.chunks import Pack
from tasks.workload.base import Merge, Workload
from tasks.workload.packs import COMMAND, INPUT_HASH, packed
from tasks.workload.word_counts import OUTPUT, PARTIAL, word_count_workload

CONTENTS = [b"one two two", b"abc\xffdef", b"", b"three\n" * 1000, "\u00e9t\u00e9".encode()]

# The first 32 characters are the name of the folder, in the order of the files.
KEYS = [f"{number:032}".ljust(64, "0") for number in range(10)]

# Copies each file. One with the word "kill" ends the process, even in the second attempt of the pack.
COPY = Workload(
    name="copy",
    command="echo alone >&2; cp input out.txt; cp input part",
    pack_command=r"""exec sh -c '
for folder in */; do
  [ -s "$folder.exit" ] && continue
  echo "$folder" >>started.txt
  grep -q kill "$folder/input" && kill -9 $$
  cp "$folder/input" "$folder/out.txt"
  echo "0 1" >"$folder/.exit"
done'""",
    outputs=("out.txt",),
    merge=Merge(command="cat partials/* >part", corpus_command="cat partials/* >all", outputs=("all",), partial="part"),
)


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a pack as on a node, and returns both archives as dictionaries."""

    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)

    def run_pack(workload, contents, before=lambda _: None, etag=""):
        files = [
            written_file(tmp_path, number, content, KEYS[number], etag=etag) for number, content in enumerate(contents)
        ]
        directory = tmp_path / f"wd{len(list(tmp_path.glob('wd*')))}"
        directory.mkdir()
        with packed(Pack.of(files), workload) as (archive, errors):
            assert errors == {}
            (directory / "pack.tar").write_bytes(archive.read())
        for name, content in workload.files.items():
            (directory / name).write_bytes(content)
        before(directory)
        environment = os.environ | {"FILES": str(directory), "PATH": f"{programs}:{os.environ['PATH']}"}
        subprocess.run(["/bin/sh", "-c", COMMAND], cwd=directory, env=environment, check=True, timeout=60)
        return [contents_of(directory / name) for name in ("results.tar", "partials.tar")]

    return run_pack


def contents_of(path):
    """Return the members of an archive, by the number of their file and their name."""
    if not path.exists():
        return None
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert len({member.name for member in members}) == len(members)
        return {
            (int(member.name.split("/")[0]), member.name.split("/")[1]): archive.extractfile(member).read()
            for member in members
        }


@pytest.mark.parametrize("corpus", [False, True])
def test_pack_in_one_process_equals_single_files(run, corpus):
    workload = word_count_workload(2, ignore_case=False, corpus=corpus)

    together = run(workload, CONTENTS)
    alone = run(replace(workload, pack_command=""), CONTENTS)

    assert together == alone
    results, partials = together
    assert results[1, ".exit"] == b"1 1\n"
    assert results[1, "stderr.txt"].startswith(b"input error: input.txt is not UTF-8 text")
    assert [results[number, ".exit"] for number in (0, 2, 3, 4)] == [b"0 1\n"] * 4
    assert {name for number, name in results if number != 1} == {".exit", OUTPUT}
    assert partials is None if not corpus else set(partials) == {(number, PARTIAL) for number in (0, 2, 3, 4)}


def test_empty_partials_archive_exists(run):
    assert run(word_count_workload(2, ignore_case=False, corpus=True), [b"\xff", b"\0"])[1] == {}


def test_file_that_kills_pack_is_tried_alone(run):
    contents = [b"0", b"kill 1", b"2", b"kill 3", b"kill 4", b"5"]

    results, partials = run(COPY, contents)

    assert {number: content for (number, name), content in results.items() if name == "out.txt"} == dict(
        enumerate(contents)
    )
    # Only the files that were processed alone have a partial here.
    assert partials == {(number, "part"): contents[number] for number in (1, 3, 4)}
    assert all(results[number, ".exit"] == b"0 1\n" for number in range(6))


def test_pack_command_that_fails_leaves_files_alone(run):
    results, _ = run(replace(COPY, pack_command="exit 7"), [b"0", b"1"])

    assert [results[number, "out.txt"] for number in (0, 1)] == [b"0", b"1"]


def test_restarted_pack_skips_finished_files(run):
    def leave_traces(directory):
        """Leave what a killed node leaves: a finished file, a file without its exit code, and half of an archive."""
        first, second = (directory / KEYS[number][:32] for number in (0, 1))
        for folder in (first, second):
            folder.mkdir()
            (folder / "out.txt").write_bytes(b"earlier")
        (first / ".exit").write_bytes(b"0 1\n")
        (second / ".exit").touch()
        (directory / "results.tar").write_bytes(b"half" * 200)
        (directory / "partials.tar").write_bytes(b"half")

    results, partials = run(COPY, [b"0", b"1", b"2"], before=leave_traces)

    assert [results[number, "out.txt"] for number in range(3)] == [b"earlier", b"1", b"2"]
    assert partials == {}


def test_crash_of_pack_keeps_finished_files(run, tmp_path):
    killing = "grep -q kill input && kill -9 $$; cp input out.txt"
    with pytest.raises(subprocess.CalledProcessError):
        run(replace(COPY, command=killing, pack_command=""), [b"0", b"1", b"kill 2", b"3"])
    results = contents_of(tmp_path / "wd0" / "results.tar")

    assert [results[number, "out.txt"] for number in (0, 1)] == [b"0", b"1"]


def test_file_out_of_memory_in_pack_succeeds_alone(run):
    """A limit of the pack's process stands for memory that other files use."""
    workload = word_count_workload(1, ignore_case=False, corpus=True)
    limited = replace(workload, pack_command=f"ulimit -v 60000; {workload.pack_command} --memory-mb 999")
    large = " ".join(map(str, range(700_000))).encode()

    results, partials = run(limited, [b"one two two", large, b"three"])

    assert [results[number, ".exit"] for number in range(3)] == [b"0 1\n"] * 3
    assert set(partials) == {(number, PARTIAL) for number in range(3)}


def test_blobs_of_pack_are_hashed_once(run):
    workload = word_count_workload(1, ignore_case=False)
    contents = [b"one two two", b"three"]

    def download(directory):
        for number, content in enumerate(contents):
            folder = directory / KEYS[number][:32]
            folder.mkdir()
            (folder / "input.txt").write_bytes(content)

    results, _ = run(workload, contents, before=download, etag="0x1")

    for number, content in enumerate(contents):
        assert results[number, INPUT_HASH] == f"{hashlib.sha256(content).hexdigest()}  input.txt\n".encode()
        assert (number, OUTPUT) in results
