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
    """The folder that the tests work in, off any node."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AZ_BATCH_")]:
        monkeypatch.delenv(name)
    return tmp_path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("text", "n", "expected"), CASES)
def test_the_result_for_programs(folder, text, n, expected):
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


def test_the_result_for_people(folder, monkeypatch):
    (folder / "a.txt").write_text("b " * 10 + "\x1b[31m")
    monkeypatch.setenv("AZ_BATCH_NODE_ID", "tvmps_1")
    monkeypatch.setenv("AZ_BATCH_TASK_ID", "f-1")
    monkeypatch.setenv("AZ_BATCH_JOB_ID", "job\udcff")

    assert main(["a.txt"]) == 0

    assert (folder / "a_OUTPUT.txt").read_text() == (
        "10  b\n 1  \\x1b[31m\n\nNode:       tvmps_1\nBatch task: f-1\nJob:        job\\udcff\nPool:       -\n"
    )


def test_the_result_for_people_of_a_file_without_words(folder):
    (folder / "a.txt").touch()

    assert main(["a.txt"]) == 0
    assert (folder / "a_OUTPUT.txt").read_text().startswith("(no words)\n\nNode:       -\n")


def test_three_words_unless_told_and_case_ignored_if_told(folder):
    (folder / "a.txt").write_text("The the b c d")

    assert main(["--ignore-case", "a.txt"]) == 0
    assert json.loads((folder / "a_OUTPUT.json").read_text())["top"] == [["the", 2], ["b", 1], ["c", 1]]


def test_outputs_go_to_a_folder_that_is_made(folder):
    (folder / "in").mkdir()
    (folder / "in" / "a.b.txt").write_text(TEXT)

    assert main(["in/a.b.txt", "--output-dir", "new/out"]) == 0
    assert names_in(folder / "new" / "out") == ["a.b_OUTPUT.json", "a.b_OUTPUT.txt"]
    assert names_in(folder / "in") == ["a.b.txt"]


def test_a_failing_file_does_not_keep_the_others_from_being_counted(folder, capsys):
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


def test_a_file_that_fails_while_it_is_read(capsys):
    # A process may not read its memory at address 0.
    assert main(["/proc/self/mem", "--output-dir", "out"]) == 1
    assert capsys.readouterr().err == "input error: /proc/self/mem cannot be read: Input/output error\n"


@pytest.mark.parametrize("occupied", ["a_OUTPUT.txt", "a_OUTPUT.json"])
def test_an_output_that_cannot_be_moved_into_place_leaves_nothing(folder, capsys, occupied):
    (folder / "a.txt").write_text(TEXT)
    (folder / occupied).mkdir()

    assert main(["a.txt"]) == 1
    assert capsys.readouterr().err == f"output error: {occupied} cannot be written: Is a directory\n"
    assert not [name for name in names_in(folder) if name.endswith(".tmp")]


def test_an_output_folder_that_is_a_file(folder, capsys):
    (folder / "a.txt").write_text(TEXT)

    assert main(["a.txt", "--output-dir", "a.txt"]) == 1
    assert capsys.readouterr().err.startswith("output error: a.txt/a_OUTPUT.txt cannot be written: ")


def test_a_repeat_in_a_dirty_folder_replaces_what_is_there(folder):
    """Field report 17: a Batch retry runs in the folder of the first attempt."""
    (folder / "a.txt").write_text(TEXT)
    (folder / "a_OUTPUT.json").write_text('{"file": "a.t')
    (folder / "a_OUTPUT.txt").write_text("half " * 1000)
    (folder / ".topn-0000000000000000.tmp").write_text("of a process that was killed")

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
def test_any_name_is_only_a_name(folder, capsys, name):
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
def test_a_name_too_long_for_its_outputs_is_shortened_with_a_hash(folder, name):
    (folder / name).write_text(TEXT)

    assert main([name]) == 0

    outputs = sorted(set(names_in(folder)) - {name})
    assert [output[output.index("_") :] for output in outputs] == ["_OUTPUT.json", "_OUTPUT.txt"]
    assert all(len(os.fsencode(output)) <= 255 for output in outputs)
    assert all(output.startswith(name[:50]) for output in outputs)
    assert json.loads((folder / outputs[0]).read_bytes())["file"] == name


def test_long_names_that_differ_at_the_end_have_different_outputs():
    assert output_paths("x" * 254 + "1", None).text != output_paths("x" * 254 + "2", None).text
    assert output_paths("x" * 243, None).json == "x" * 243 + "_OUTPUT.json"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "name at least one FILE"),
        (["a.txt", "--num-words", "0"], "--num-words must be at least 1"),
        (["a.txt", "--num-words=-1"], "--num-words must be at least 1"),
        (["a.txt", "--num-words", "many"], "invalid int value: 'many'"),
        (["a.txt", "--num-words"], "argument --num-words: expected one argument"),
        (["a.txt", "--processes", "0"], "--processes must be at least 1"),
        (["a.txt", "--memory-mb", "1.5"], "invalid int value: '1.5'"),
        (["a.txt", "--num", "3"], "unrecognized arguments: '--num'"),
        (["a.txt", "--check=no"], "unrecognized arguments: '--check=no'"),
        (["a.txt", "a.txt"], "a.txt and a.txt need other names or another folder"),
        (
            ["a.txt", "./a.md"],
            "a.txt and ./a.md need other names or another folder: ./a_OUTPUT.txt would be overwritten",
        ),
        (["a.txt", "b/a.txt", "--output-dir", "out"], "out/a_OUTPUT.txt would be overwritten"),
        (["a.txt", "a_OUTPUT.txt"], "a_OUTPUT.txt and a.txt need other names or another folder"),
    ],
)
def test_bad_usage_is_refused_before_anything_is_written(folder, capsys, arguments, complaint):
    (folder / "a.txt").write_text(TEXT)

    with pytest.raises(SystemExit) as stop:
        main(arguments)

    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err
    assert names_in(folder) == ["a.txt"]


def test_the_same_stem_in_two_folders_is_fine_beside_the_files(folder):
    (folder / "b").mkdir()
    for file in ("a.txt", "b/a.txt"):
        (folder / file).write_text(TEXT)

    assert main(["a.txt", "b/a.txt"]) == 0


def test_interrupted_it_stops_without_a_word(folder, monkeypatch, capsys):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    (folder / "a.txt").write_text(TEXT)
    monkeypatch.setattr("task_script.top_words.count_words", interrupt)

    assert main(["a.txt"]) == 130
    assert capsys.readouterr().err == ""


@given(st.lists(st.text(max_size=5), min_size=1))
def test_the_result_for_programs_is_valid_whatever_the_words(words):
    summary = Summary(words[0], "00", 1, 2, 3, [(word, 1) for word in words])

    assert json.loads(render_json(summary)) == {
        "file": words[0],
        "sha256": "00",
        "bytes": 1,
        "words": 2,
        "distinct": 3,
        "top": [[word, 1] for word in words],
    }


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])

    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name in vars(Options()).keys() - {"files", "block_size"}:
        assert f"--{name.replace('_', '-')}" in shown


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_it_needs_nothing_but_an_old_python(path):
    tree = ast.parse(path.read_bytes(), feature_version=(3, 8))

    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {name.partition(".")[0] for name in imported} <= {"task_script", *sys.stdlib_module_names}


def test_check_is_silent(capsys):
    assert main(["--check"]) == 0
    assert capsys.readouterr() == ("", "")
