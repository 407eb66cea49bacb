from datetime import datetime, timezone

import pytest

from localbatch.nodes.transfer import expand_variables, find_files, is_in_time

FILES = (
    "a.txt",
    "b.csv",
    ".hidden.txt",
    "sub/c.txt",
    "sub/deep/d.txt",
    "sub/.git/e.txt",
    "x1.log",
    "x2.log",
    "[odd].txt",
)


@pytest.fixture
def directory(tmp_path):
    for name in FILES:
        path = tmp_path / "wd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "stdout.txt").touch()
    return tmp_path / "wd"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.txt", ["a.txt"]),
        ("none.txt", []),
        ("none/*.txt", []),
        ("sub", []),
        ("*.txt", ["[odd].txt", "a.txt"]),
        (".*.txt", [".hidden.txt"]),
        ("**/*.txt", ["[odd].txt", "a.txt", "sub/c.txt", "sub/deep/d.txt"]),
        ("**", ["[odd].txt", "a.txt", "b.csv", "sub/c.txt", "sub/deep/d.txt", "x1.log", "x2.log"]),
        ("sub/**/*.txt", ["c.txt", "deep/d.txt"]),
        ("*/c.txt", ["sub/c.txt"]),
        ("x?.log", ["x1.log", "x2.log"]),
        ("x[2-9].log", ["x2.log"]),
        ("x[!2].log", ["x1.log"]),
        ("../stdout.txt", ["stdout.txt"]),
        ("../std*.txt", ["stdout.txt"]),
    ],
)
def test_pattern_matches_as_documented(directory, pattern, names):
    assert sorted(name for _, name in find_files(pattern, directory)) == names


def test_pattern_may_be_absolute(directory):
    assert [name for _, name in find_files(f"{directory}/sub/*.txt", directory)] == ["c.txt"]


@pytest.mark.parametrize("folder", ["texts [2026]", "a*b", "what?", "[x]"])
def test_path_of_node_is_no_pattern(tmp_path, folder):
    directory = tmp_path / folder / "wd"
    directory.mkdir(parents=True)
    (directory / "a.txt").touch()
    (directory.parent / "stdout.txt").touch()
    for pattern in ("a.txt", "*.txt", "**/*.txt", f"{directory}/*.txt", f"{directory}/a.txt"):
        assert [name for _, name in find_files(pattern, directory)] == ["a.txt"]
    assert [path for path, _ in find_files("../std*.txt", directory)] == [directory.parent / "stdout.txt"]


def test_variables_of_environment_are_expanded():
    environment = {"DIR": "/d", "A": "x"}
    assert expand_variables("$DIR/${A}y/$NONE", environment) == "/d/xy/$NONE"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", True),
        ("se=2026-06-01T12:00:01Z&sig=x", True),
        ("se=2026-06-01T12:00:00Z&sig=x", False),
        ("se=2026-06-01T12%3A00%3A00Z&sig=x", False),
        ("se=2026-06-01&sig=x", False),
        ("st=2026-06-01T12:00Z&se=2026-06-02&sig=x", True),
        ("st=2026-06-01T12:01Z&se=2026-06-02&sig=x", False),
        ("skt=2026-05-01&ske=2026-06-01&se=2026-06-02&sig=x", False),
        ("skt=2026-06-02&se=2026-06-03&sig=x", False),
        ("se=soon&sig=x", True),
        ("si=policy&sig=x", True),
    ],
)
def test_signature_is_valid_for_its_period(query, expected):
    noon = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
    assert is_in_time(f"http://127.0.0.1/a/c/b?{query}", noon) is expected
