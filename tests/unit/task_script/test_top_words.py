"""The command line, the results, and the errors of the task script."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import task_script
from task_script.options import Options
from task_script.top_words import Summary, main, output_paths, render_json

PACKAGE = Path(task_script.__file__).parent
TEXT = "the cat, the dog\n"

CASES = [
    pytest.param("", 3, [], id="empty"),
    pytest.param("...", 3, [], id="no words"),
    pytest.param("the cat the dog", 1, [["the", 2]], id="top one"),
    pytest.param("b a c b", 3, [["b", 2], ["a", 1], ["c", 1]], id="ties"),
    pytest.param(
        "\ufeff\u00e9t\u00e9\u3000\u00e9t\u00e9\u00a0\u732b", 2, [["\u00e9t\u00e9", 2], ["\u732b", 1]], id="Unicode"
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory, without the environment variables of a node."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AZ_BATCH_")]:
        monkeypatch.delenv(name)
    return tmp_path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("text", "n", "expected"), CASES)
def test_json_result(folder, text, n, expected):
    data = text.encode()
    (folder / "a.txt").write_bytes(data)

    assert main(["./a.txt", "--num-words", str(n)]) == 0

    result = json.loads((folder / "a_OUTPUT.json").read_bytes())
    words = [word.strip("., ") for word in data.decode("utf-8-sig").split()]
    assert list(result) == ["file", "sha256", "bytes", "words", "distinct", "top"]
    assert result == {
        "file": "./a.txt",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "words": len([word for word in words if word]),
        "distinct": len({word for word in words if word}),
        "top": expected,
    }


def test_text_result(folder, monkeypatch):
    (folder / "a.txt").write_text("b " * 10 + "\x1b[31m")
    monkeypatch.setenv("AZ_BATCH_NODE_ID", "tvmps_1")
    monkeypatch.setenv("AZ_BATCH_TASK_ID", "f-1")
    monkeypatch.setenv("AZ_BATCH_JOB_ID", "job\udcff")

    assert main(["a.txt"]) == 0

    assert (folder / "a_OUTPUT.txt").read_text() == (
        "10  b\n 1  \\x1b[31m\n\nNode:       tvmps_1\nBatch task: f-1\nJob:        job\\udcff\nPool:       -\n"
    )


def test_text_result_without_words(folder):
    (folder / "a.txt").touch()

    assert main(["a.txt"]) == 0
    assert (folder / "a_OUTPUT.txt").read_text().startswith("(no words)\n\nNode:       -\n")


def test_defaults_and_ignore_case(folder):
    (folder / "a.txt").write_text("The the b c d")

    assert main(["--ignore-case", "a.txt"]) == 0
    assert json.loads((folder / "a_OUTPUT.json").read_text())["top"] == [["the", 2], ["b", 1], ["c", 1]]


def test_creates_output_folder(folder):
    (folder / "in").mkdir()
    (folder / "in" / "a.b.txt").write_text(TEXT)

    assert main(["in/a.b.txt", "--output-dir", "new/out"]) == 0
    assert names_in(folder / "new" / "out") == ["a.b_OUTPUT.json", "a.b_OUTPUT.txt"]
    assert names_in(folder / "in") == ["a.b.txt"]


def test_failing_file_does_not_stop_others(folder, capsys):
    (folder / "good.txt").write_text(TEXT)
    (folder / "bad.txt").write_bytes(b"0123456789 \n\xff")
    (folder / "binary.bin").write_bytes(b"ELF\0")
    (folder / "folder").mkdir()

    assert main(["bad.txt", "missing.txt", "binary.bin", "folder", "good.txt"]) == 1

    assert capsys.readouterr().err.splitlines() == [
        "input error: bad.txt is not UTF-8 text (byte 0xff at offset 12)",
        "input error: missing.txt cannot be read: No such file or directory",
        "input error: binary.bin has a NUL byte at offset 3",
        "input error: folder cannot be read: Is a directory",
    ]
    assert [name for name in names_in(folder) if "OUTPUT" in name] == ["good_OUTPUT.json", "good_OUTPUT.txt"]


def test_read_error_fails_file(capsys):
    # Reading the memory of a process at address 0 is an error.
    assert main(["/proc/self/mem", "--output-dir", "out"]) == 1
    assert capsys.readouterr().err == "input error: /proc/self/mem cannot be read: Input/output error\n"


@pytest.mark.parametrize("occupied", ["a_OUTPUT.txt", "a_OUTPUT.json"])
def test_failed_rename_deletes_temporary_file(folder, capsys, occupied):
    (folder / "a.txt").write_text(TEXT)
    (folder / occupied).mkdir()

    assert main(["a.txt"]) == 1
    assert capsys.readouterr().err == f"output error: {occupied} cannot be written: Is a directory\n"
    assert not [name for name in names_in(folder) if name.endswith(".tmp")]


def test_output_folder_must_not_be_file(folder, capsys):
    (folder / "a.txt").write_text(TEXT)

    assert main(["a.txt", "--output-dir", "a.txt"]) == 1
    assert capsys.readouterr().err.startswith("output error: a.txt/a_OUTPUT.txt cannot be written: ")


def test_repeat_replaces_partial_outputs(folder):
    """Field report 17: a Batch retry runs in the folder of the first attempt."""
    (folder / "a.txt").write_text(TEXT)
    (folder / "a_OUTPUT.json").write_text('{"file": "a.t')
    (folder / "a_OUTPUT.txt").write_text("half " * 1000)
    (folder / ".topn-0000000000000000.tmp").write_text("left by a killed process")

    first, second = [], []
    for outputs in (first, second):
        assert main(["a.txt"]) == 0
        outputs += [(folder / name).read_text() for name in ("a_OUTPUT.json", "a_OUTPUT.txt")]

    assert first == second
    assert json.loads(first[0])["words"] == 4


@pytest.mark.parametrize(
    "name",
    [
        "two words.txt",
        'it\'s "quoted".txt',
        "$(touch pwned).txt",
        "a;touch pwned;.txt",
        "`touch pwned`.txt",
        "*.txt",
        "--num-words",
        "-.txt",
        ".hidden",
        "no suffix",
        "new\nline.txt",
        "na\u00efve \u732b.txt",
        "not UTF-8 \udcff.txt",
        "\u2028separator.txt",
    ],
)
def test_accepts_any_file_name(folder, capsys, name):
    (folder / name).write_text(TEXT)

    assert main(["--", name]) == 0

    stem = Path(name).stem
    assert names_in(folder) == sorted([name, f"{stem}_OUTPUT.txt", f"{stem}_OUTPUT.json"])
    assert json.loads((folder / f"{stem}_OUTPUT.json").read_bytes())["file"] == name
    assert main(["--", f"missing {name}"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.encode()


@pytest.mark.parametrize("name", ["x" * 255, "x" * 251 + ".txt", "\u00e9" * 125 + ".txt", "\udcff" * 255])
def test_long_names_are_shortened_with_hash(folder, name):
    (folder / name).write_text(TEXT)

    assert main([name]) == 0

    outputs = sorted(set(names_in(folder)) - {name})
    assert [output[output.index("_") :] for output in outputs] == ["_OUTPUT.json", "_OUTPUT.txt"]
    assert all(len(os.fsencode(output)) <= 255 for output in outputs)
    assert all(output.startswith(name[:50]) for output in outputs)
    assert json.loads((folder / outputs[0]).read_bytes())["file"] == name


def test_shortened_names_stay_different():
    assert output_paths("x" * 254 + "1", None).text != output_paths("x" * 254 + "2", None).text
    assert output_paths("x" * 243, None).json == "x" * 243 + "_OUTPUT.json"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least one FILE"),
        (["a.txt", "--num-words", "0"], "--num-words must be at least 1"),
        (["a.txt", "--num-words=-1"], "--num-words must be at least 1"),
        (["a.txt", "--num-words", "many"], "invalid int value: 'many'"),
        (["a.txt", "--num-words"], "argument --num-words: expected one argument"),
        (["a.txt", "--processes", "2"], "unrecognized arguments: '--processes'"),
        (["a.txt", "--encoding", "hex"], "argument --encoding: 'hex' is not a text encoding of Python"),
        (["a.txt", "--max-expanded-mb", "0"], "--max-expanded-mb must be at least 1"),
        (["a.txt", "--memory-mb", "1.5"], "invalid int value: '1.5'"),
        (["a.txt", "--num", "3"], "unrecognized arguments: '--num'"),
        (["a.txt", "--check=no"], "unrecognized arguments: '--check=no'"),
        (["a.txt", "a.txt"], "a.txt and a.txt need different names or folders"),
        (
            ["a.txt", "./a.md"],
            "a.txt and ./a.md need different names or folders: ./a_OUTPUT.txt would be overwritten",
        ),
        (["a.txt", "b/a.txt", "--output-dir", "out"], "out/a_OUTPUT.txt would be overwritten"),
        (["a.txt", "a_OUTPUT.txt"], "a_OUTPUT.txt and a.txt need different names or folders"),
    ],
)
def test_wrong_usage_writes_nothing(folder, capsys, arguments, message):
    (folder / "a.txt").write_text(TEXT)

    with pytest.raises(SystemExit) as exit_info:
        main(arguments)

    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
    assert names_in(folder) == ["a.txt"]


def test_same_name_in_two_folders_is_allowed(folder):
    (folder / "b").mkdir()
    for file in ("a.txt", "b/a.txt"):
        (folder / file).write_text(TEXT)

    assert main(["a.txt", "b/a.txt"]) == 0


def test_interrupt_exits_silently(folder, monkeypatch, capsys):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    (folder / "a.txt").write_text(TEXT)
    monkeypatch.setattr("task_script.top_words.count_words", interrupt)

    assert main(["a.txt"]) == 130
    assert capsys.readouterr().err == ""


@given(st.lists(st.text(max_size=5), min_size=1))
def test_json_result_is_valid_for_any_words(words):
    summary = Summary(words[0], "00", 1, 2, 3, [(word, 1) for word in words])

    assert json.loads(render_json(summary)) == {
        "file": words[0],
        "sha256": "00",
        "bytes": 1,
        "words": 2,
        "distinct": 3,
        "top": [[word, 1] for word in words],
    }


def test_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["--help"])

    assert exit_info.value.code == 0
    output = capsys.readouterr().out
    for name in vars(Options()).keys() - {"files"}:
        assert f"--{name.replace('_', '-')}" in output


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_modules_need_only_old_standard_library(path):
    tree = ast.parse(path.read_bytes(), feature_version=(3, 8))

    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {name.partition(".")[0] for name in imported} <= {"task_script", *sys.stdlib_module_names}


def test_check_prints_nothing(capsys):
    assert main(["--check"]) == 0
    assert capsys.readouterr() == ("", "")
