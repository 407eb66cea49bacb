from __future__ import annotations

import ast
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_support import wait_until

import task_script
from task_script.options import Options
from task_script.top_words import Summary, main, output_paths, render_json

PACKAGE = Path(task_script.__file__).parent
TEXT = "the cat, the dog\n"
NUMBERS = "".join(f"{number} " for number in range(1_000_000))

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


def run_script(*arguments, command=(sys.executable, "-m", "task_script"), **options):
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environ, **options)


def find_python(version):
    python = shutil.which(f"python{version}")
    # A version manager may have put a name on the path with nothing behind it.
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"no Python {version} here")
    return python


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


def test_a_full_disk_keeps_the_last_result_and_leaves_nothing(folder):
    (folder / "a.txt").write_text(TEXT)
    (folder / "a_OUTPUT.txt").write_text("the last result")

    script = run_script("a.txt", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8)))

    assert (script.returncode, script.stdout) == (1, "")
    assert script.stderr == "output error: a_OUTPUT.txt cannot be written: File too large\n"
    assert names_in(folder) == ["a.txt", "a_OUTPUT.txt"]
    assert (folder / "a_OUTPUT.txt").read_text() == "the last result"


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


@pytest.fixture(params=["Python", "compiled"])
def program(request, package):
    """The task script from its sources, and packed with what is compiled."""
    return (sys.executable, "-m", "task_script") if request.param == "Python" else (sys.executable, str(package))


def limited(kind, limit):
    return {"preexec_fn": lambda: resource.setrlimit(kind, (limit, limit))}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_too_little_memory_is_a_failure_of_the_file(folder, processes, program):
    (folder / "a.txt").write_text(NUMBERS + " ".join(map(str, range(2_000_000, 5_000_000))))

    script = run_script(
        "a.txt",
        "--processes",
        processes,
        "--memory-mb",
        "999",
        command=program,
        **limited(resource.RLIMIT_AS, 64 * 2**20),
    )

    assert script.stderr == "input error: a.txt has more words than fit in memory\n"
    assert script.returncode == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_with_a_bound_on_memory_the_same_file_is_counted(folder, monkeypatch, processes, program):
    (folder / "a.txt").write_text(NUMBERS)
    (folder / "node").mkdir()
    monkeypatch.setenv("AZ_BATCH_TASK_WORKING_DIR", str(folder / "node"))

    bounds = ["--memory-mb", "20", "--num-words", "2000"]
    limit = limited(resource.RLIMIT_AS, 64 * 2**20)
    script = run_script("a.txt", *bounds, "--processes", processes, command=program, **limit)

    assert (script.returncode, script.stderr) == (0, "")
    result = json.loads((folder / "a_OUTPUT.json").read_text())
    assert (result["words"], result["distinct"]) == (1_000_000, 1_000_000)
    assert result["top"] == [[word, 1] for word in sorted(NUMBERS.split())[:2000]]
    assert names_in(folder / "node") == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_disk_too_full_for_counts_that_do_not_fit_in_memory(folder, processes, program):
    (folder / "a.txt").write_text(NUMBERS)

    limit = limited(resource.RLIMIT_FSIZE, 100_000)
    script = run_script("a.txt", "--memory-mb", "20", "--processes", processes, command=program, **limit)

    assert script.stderr == (
        "a.txt is not counted: its counts do not fit in memory and cannot be put aside: File too large\n"
    )
    assert script.returncode == 1
    assert names_in(folder) == ["a.txt"]


def test_without_a_folder_for_counts_that_do_not_fit_in_memory(folder, monkeypatch):
    (folder / "a.txt").write_text(TEXT)
    monkeypatch.setenv("AZ_BATCH_TASK_WORKING_DIR", str(folder / "missing"))

    script = run_script("a.txt", "--processes", "2")

    assert script.stderr.startswith(
        "a.txt is not counted: its counts do not fit in memory and cannot be put aside: No "
    )


@pytest.fixture
def counting(folder):
    """The task script, while two processes of it count a large file; and those."""
    with (folder / "a.txt").open("wb") as file:
        for _ in range(10):
            file.write(NUMBERS.encode())
    command = [sys.executable, "-m", "task_script", "a.txt", "--processes", "2"]
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as script:
        children = Path(f"/proc/{script.pid}/task/{script.pid}/children")
        wait_until(lambda: len(children.read_text().split()) == 2, "two processes", while_running=script)
        yield script, [int(child) for child in children.read_text().split()]
        script.kill()


def test_a_killed_process_is_a_failure_that_is_told(folder, counting):
    script, children = counting

    os.kill(children[0], signal.SIGKILL)

    assert script.communicate()[1] == (
        "a.txt is not counted: a process that counted a part of it was killed, maybe for lack of memory\n"
    )
    assert script.returncode == 1
    assert names_in(folder) == ["a.txt"]


def test_killed_it_leaves_no_process(counting):
    script, children = counting

    script.kill()

    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the end of all processes")


def test_standard_input_is_counted(folder):
    script = run_script("/dev/stdin", "--output-dir", ".", input="\ufeffb a b")

    assert (script.returncode, script.stderr) == (0, "")
    assert json.loads((folder / "stdin_OUTPUT.json").read_text())["top"] == [["b", 2], ["a", 1]]


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


def test_for_a_small_file_nothing_is_imported_that_takes_long(folder):
    (folder / "a.txt").write_text(TEXT)
    code = "import sys, task_script.top_words as t; print(t.main(['a.txt']), *sys.modules)"

    status, *modules = run_script("-S", "-c", code, command=[sys.executable]).stdout.split()

    assert status == "0"
    assert not {"argparse", "ctypes", "json", "pickle", "re", "string", "tempfile", "typing"}.intersection(modules)


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])

    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name in vars(Options()).keys() - {"files", "block_size"}:
        assert f"--{name.replace('_', '-')}" in shown


def test_as_a_module_and_in_a_zip_it_is_the_same_program(folder):
    source = folder / "source"
    shutil.copytree(PACKAGE, source / "task_script", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "__main__.py").write_text("from task_script.top_words import main; raise SystemExit(main())\n")
    zipapp.create_archive(source, "topn.pyz")
    (folder / "a.txt").write_text(TEXT)
    packed = (sys.executable, "-I", "-S", "topn.pyz")

    assert run_script("--check", command=packed).returncode == 0
    results = []
    for command in ((sys.executable, "-m", "task_script"), packed):
        script = run_script("a.txt", command=command)
        assert (script.returncode, script.stdout, script.stderr) == (0, "", "")
        results.append((folder / "a_OUTPUT.json").read_text())

    assert results[0] == results[1]


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


@pytest.mark.parametrize("version", ["3.6", "3.7"])
def test_an_interpreter_that_is_too_old_is_told_so(version):
    python = find_python(version)

    script = run_script("--check", command=(python, "-m", "task_script"))

    assert script.returncode == 1
    assert script.stderr.startswith(f"topn needs Python 3.8 or newer on the node, this is {version}.")
    assert len(script.stderr.splitlines()) == 1


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.12", "3.13", "3.14"])
def test_it_runs_on_other_pythons(folder, version):
    python = find_python(version)
    (folder / "a.txt").write_text(TEXT)

    script = run_script("a.txt", command=(python, "-m", "task_script"))

    assert (script.returncode, script.stderr) == (0, "")
    assert json.loads((folder / "a_OUTPUT.json").read_text())["top"] == [["the", 2], ["cat", 1], ["dog", 1]]
