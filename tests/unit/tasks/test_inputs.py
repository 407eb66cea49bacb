"""Which files the inputs select, and their names."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import UsageError
from tasks.model.inputs import FoundFile, LocalFiles, find_inputs, identity, matches


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def names(*inputs, **options):
    return [file.name for file in find_inputs(LocalFiles(inputs=inputs, **options))]


@pytest.mark.parametrize("name", ["a\0b", "\0", "\ud800", "missing\n\x1b[2J", "[", "**/\0", "az\x1b://x"])
def test_impossible_name_is_rejected(name):
    with pytest.raises(UsageError) as refusal:
        names(name)
    assert str(refusal.value).isprintable()


def test_devices_and_pipes_are_rejected(folder):
    os.mkfifo(folder / "pipe")
    for name in ("pipe", "/dev/zero"):
        with pytest.raises(UsageError, match="is not a regular file"):
            names(name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.txt", "missing.txt does not exist"),
        ("missing/*.txt", "missing/.*.txt matches no file"),
        ("empty", "empty matches no file"),
        ("empty/**", "matches no file"),
        ("link", "link cannot be read"),
        ("links/*", "links/link cannot be read"),
        ("s3://bucket/a.txt", "s3://bucket/a.txt is not in Blob Storage"),
        ("*/../a.txt", "has `..` after a wildcard"),
    ],
)
def test_input_without_files_is_rejected(folder, given, message):
    (folder / "empty").mkdir()
    (folder / "links").mkdir()
    for link in ("link", "links/link"):
        (folder / link).symlink_to("nowhere")
    with pytest.raises(UsageError, match=message):
        names(given)


def test_non_utf8_name_is_rejected(folder):
    with open(os.fsencode(folder) + b"/\xff.txt", "w"):
        pass
    for chosen in ("*", str(folder), "\udcff.txt"):
        with pytest.raises(UsageError, match="not UTF-8: rename"):
            names(chosen)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a.txt"], ["a.txt"]),
        (["data/b.md"], ["b.md"]),
        (["data"], ["b.md", "deep/er/c.txt", "deep/link.md"]),
        (["data/"], ["b.md", "deep/er/c.txt", "deep/link.md"]),
        (["data/*"], ["b.md"]),
        (["data/**"], ["b.md", "deep/er/c.txt", "deep/link.md"]),
        (["data/**/*.txt"], ["deep/er/c.txt"]),
        (["**/**/c.txt"], ["data/deep/er/c.txt"]),
        (["**/e*/c.txt"], ["data/deep/er/c.txt"]),
        (["d?ta/[a-c].md"], ["data/b.md"]),
        (["data/.h*"], [".hidden"]),
        (["data/.git/*"], ["config"]),
        (["data/.hidden"], [".hidden"]),
        (["./data/../data/*.md", "data/b.md"], ["b.md"]),
        (["linked/*"], ["b.md"]),
        (["*/b.md"], ["data/b.md"]),
        (["data", "linked"], ["b.md", "deep/er/c.txt", "deep/link.md"]),
    ],
)
def test_files_are_named_below_root_of_input(folder, given, expected):
    write(folder, "a.txt", "data/b.md", "data/deep/er/c.txt", "data/.hidden", "data/.git/config")
    (folder / "data/deep/link.md").symlink_to("../b.md")
    (folder / "data/deep/loop").symlink_to("..")
    (folder / "linked").symlink_to("data")
    os.mkfifo(folder / "data/deep/pipe")
    assert names(*given) == expected


def test_loops_of_links_end(folder):
    write(folder, "a.txt", "sub/b.txt")
    (folder / "self").symlink_to(".")
    (folder / "sub/up").symlink_to("..")
    assert names("**/*.txt") == names(".") == ["a.txt", "sub/b.txt"]


@pytest.mark.parametrize("name", ["texts [2026]", "a*b", "what?", "[x]"])
def test_existing_path_is_no_pattern(folder, name):
    write(folder, f"{name}/[1].txt", f"{name}/1.txt", "x/1.txt")
    assert names(f"{name}/[1].txt") == ["[1].txt"]
    assert names(name) == ["1.txt", "[1].txt"]
    assert names(f"{name}/*.txt") == ["1.txt", "[1].txt"]


def test_longest_root_names_file(folder):
    write(folder, "2026/a.txt", "2026/11/b.txt", "c.txt")
    assert names("2026", roots=["."]) == ["2026/11/b.txt", "2026/a.txt"]
    assert names("2026/**", roots=[".", "2026/11/"]) == ["b.txt", "2026/a.txt"]
    with pytest.raises(UsageError, match=r"c\.txt is below no `--root`"):
        names("2026", "c.txt", roots=["2026"])
    with pytest.raises(UsageError, match="below no `--root`"):
        names("2026/a.txt", roots=["202"])


def test_excluded_names_are_left_out(folder):
    write(folder, "a.txt", "drafts/b.txt", "drafts/deep/c.md", "notes/d.md")
    assert names("**", exclude=["drafts/**"]) == ["a.txt", "notes/d.md"]
    assert names("**", "a.txt", exclude=["**/*.md", "a.txt"]) == ["drafts/b.txt"]
    assert names("**", exclude=["*.md"]) == ["a.txt", "drafts/b.txt", "drafts/deep/c.md", "notes/d.md"]
    with pytest.raises(UsageError, match="`--exclude` leaves out all inputs"):
        names("notes", exclude=["*"])


def test_listed_outputs_are_no_inputs_of_patterns(folder):
    write(folder, "a.txt", "out/a_OUTPUT.txt")
    outputs = {identity("out/a_OUTPUT.txt")}
    (folder / "link").symlink_to("out")
    for chosen in (["**"], ["."], ["*", "**/*.txt"]):
        assert [file.name for file in find_inputs(LocalFiles(inputs=chosen), outputs)] == ["a.txt"]
    for chosen in ("out", "out/*", "link/*"):
        with pytest.raises(UsageError, match="matches only outputs of earlier runs"):
            find_inputs(LocalFiles(inputs=[chosen]), outputs)
    [file] = find_inputs(LocalFiles(inputs=["out/a_OUTPUT.txt"]), outputs)
    assert file == FoundFile(path=str(folder / "out/a_OUTPUT.txt"), name="a_OUTPUT.txt")


parts = st.sampled_from(["a", "b", "c.txt", "ab", "x[1]", "d e"])
file_names = st.lists(parts, min_size=1, max_size=3).map("/".join)


@given(st.sets(file_names, min_size=1, max_size=6), st.sets(file_names, max_size=6))
def test_other_inputs_never_change_a_name(tmp_path_factory, first, others):
    folder = tmp_path_factory.mktemp("inputs")
    for name in first | others:
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    paths = [str(folder / f"{name}.txt") for name in sorted(first)]
    alone = find_inputs(LocalFiles(inputs=[f"{folder}/**"]))
    for name in others - first:
        (folder / f"{name}.txt").unlink()
    fewer = find_inputs(LocalFiles(inputs=[f"{folder}/**"]))
    assert {(file.path, file.name) for file in fewer} <= {(file.path, file.name) for file in alone}
    assert {file.path for file in fewer} == set(paths)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("**", "a/b", True),
        ("**/b", "b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "x/b", False),
        ("[ab].t?t", "a.txt", True),
        ("A", "a", False),
    ],
)
def test_pattern_matches_whole_name(pattern, name, expected):
    assert matches(name, pattern) is expected
