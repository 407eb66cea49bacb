"""User-defined workloads, as in docs/own-workload.md."""

from __future__ import annotations

import re
import runpy
import subprocess
import zlib
from pathlib import Path

import pytest
from markdown_support import Shown
from tests_support import REPOSITORY, send_to_prefect

from tasks.azure import batch

PAGE = (REPOSITORY / "docs/own-workload.md").read_text()
LINE_COUNTS, MAX_LINES, DISTINCT_LINES, COMPRESSED = re.findall(
    r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
)


@pytest.fixture
def run_script(topn, assert_nothing_left):
    """Return a function that runs the file of a flow, as a user does, with texts in data/, and returns the exit status."""
    Path("data").mkdir()

    def run(source, **texts):
        for name, content in texts.items():
            Path(f"data/{name}.txt").write_bytes(content)
        Path("own_flow.py").write_text(source)
        with topn.environ():
            with pytest.raises(SystemExit) as ended:
                runpy.run_path("own_flow.py", run_name="__main__")
            assert_nothing_left()
        return ended.value.code

    return run


def artifacts(prefect_api, key):
    """Return the newest artifact with a key."""
    query = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    return send_to_prefect(prefect_api, "/artifacts/filter", query)[0]


def test_shell_command_makes_short_workload(run_script, prefect_api):
    assert len(LINE_COUNTS.splitlines()) <= 25
    run_script(LINE_COUNTS, a=b"1\n2\n3\n", b=b"")
    assert Path("lines/a_OUTPUT.lines.txt").read_text() == "3\n"
    assert Path("lines/b_OUTPUT.lines.txt").read_text() == "0\n"
    assert Shown(artifacts(prefect_api, "lines-results")["data"]).rows == [
        ["file", "status", "lines.txt"],
        ["a.txt", "counted", "3"],
        ["b.txt", "counted", "0"],
    ]
    assert artifacts(prefect_api, "lines-progress")["description"].startswith("2 of 2 completed")
    # A second run counts nothing.
    run_script(LINE_COUNTS)
    assert artifacts(prefect_api, "lines-summary")["data"].startswith("# 2 files: 2 unchanged\n")


def test_merge_of_shell_commands_makes_corpus(run_script, prefect_api):
    assert len(DISTINCT_LINES.splitlines()) <= 30
    run_script(DISTINCT_LINES, a=b"1\n2\n2\n", b=b"2\n3\n", c=b"1\n2\n2\n", empty=b"")
    assert Path("distinct/a_OUTPUT.lines.txt").read_text() == "2\n"
    assert Path("distinct/corpus.lines.txt").read_text() == "3\n"
    assert ["All files together", "3"] in Shown(artifacts(prefect_api, "distinct-summary")["data"]).rows
    # A second run merges what a new file changes.
    run_script(DISTINCT_LINES, d=b"4\n")
    assert Path("distinct/corpus.lines.txt").read_text() == "4\n"
    assert artifacts(prefect_api, "distinct-summary")["data"].startswith("# 5 files: 1 done, 4 unchanged\n")


def test_shipped_program_runs_and_shows_results(run_script, prefect_api, capsys):
    assert run_script(MAX_LINES, good="12345\n1 é\n".encode(), bad=b"\xff") == 1
    printed = capsys.readouterr().out
    assert "failed: bad.txt is not UTF-8 text at byte 0 [input]" in printed
    assert re.search(r"^good\.txt *│ *5 │ done", printed, re.MULTILINE)
    assert Path("longest/good_OUTPUT.longest.txt").read_text() == "5\n"
    assert Shown(artifacts(prefect_api, "longest-results")["data"]).rows == [
        ["file", "status", "letters"],
        ["bad.txt", "failed: is not UTF-8 text at byte 0", ""],
        ["good.txt", "done", "5"],
    ]
    assert ["Longest line of all", "5 letters, in good.txt"] in Shown(
        artifacts(prefect_api, "longest-summary")["data"]
    ).rows
    failures = artifacts(prefect_api, "longest-failures")["data"]
    assert "| input | 1 |" in failures
    # The repeat command expects a folder with the shipped files.
    Path("longest_line.py").write_bytes(re.search(r'PROGRAM = b"""(.*?)"""', MAX_LINES, re.DOTALL)[1].encode())
    command = re.search(r"```text\n(cp .*?)\n```", failures).group(1)
    repeated = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert repeated.returncode == 1
    assert "input error: input is not UTF-8 text at byte 0" in repeated.stderr


def test_error_in_output_error_fails_files(run_script, prefect_api, capsys, caplog):
    check = 'if outputs["longest.txt"].strip().isdigit():'
    assert run_script(MAX_LINES.replace(check, f"1 / 0\n        {check}"), a=b"1", b=b"2") == 1
    reason = "The workload longest could not check its outputs: ZeroDivisionError: division by zero"
    assert f"failed: a.txt: {reason} [program]" in capsys.readouterr().out
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert "The workload longest could not check its outputs" in artifacts(prefect_api, "longest-failures")["data"]


def test_unreadable_stored_result_is_not_used(run_script, capsys):
    assert run_script(MAX_LINES, a=b"1") == 0
    check = 'if outputs["longest.txt"].strip().isdigit():'
    assert run_script(MAX_LINES.replace(check, f"1 / 0\n        {check}")) == 1
    assert "`output_error` of the workload longest raised ZeroDivisionError" in capsys.readouterr().err


def test_error_in_column_is_printed(run_script, capsys):
    columns = 'return {"letters": int('
    assert run_script(MAX_LINES.replace(columns, 'return {"letters": [0] + int('), a=b"1") == 0
    assert "`columns` of a.txt is missing, because the workload longest raised TypeError" in capsys.readouterr().err


def test_each_broken_method_is_logged_without_secrets(run_script, capsys, caplog):
    """Two methods fail in the same function."""
    function = (
        'def fail():\n    raise ValueError("https://a.example/b?sv=1&sig=abcdefgh12345678")\n\n\nclass LongestLine('
    )
    source = MAX_LINES.replace("class LongestLine(", function)
    for statement in ('return {"letters": int(', "lengths = [(int("):
        source = source.replace(statement, f"fail()\n        {statement}")
    assert run_script(source, a=b"1") == 0
    assert caplog.text.count("Traceback") == 2
    printed = capsys.readouterr().err
    assert "`columns` of a.txt is missing" in printed
    assert "`figures` is missing" in printed
    assert "sig=[hidden]" in printed


def with_broken_method(name):
    """Return the example of a merge with a method that raises an error."""
    broken = f"class Distinct(Workload):\n    def {name}(self, *_):\n        raise ValueError('broken')\n\n\n"
    return DISTINCT_LINES.replace("DISTINCT_LINES = Workload(", f"{broken}DISTINCT_LINES = Distinct(")


def logged_errors(caplog):
    return [record.exc_info[0] for record in caplog.records if record.exc_info]


def test_error_in_corpus_of_file_costs_a_merge(run_script, capsys, caplog):
    assert run_script(with_broken_method("corpus_of_file"), a=b"1\n2\n") == 0
    assert Path("distinct/a_OUTPUT.lines.txt").read_text() == "2\n"
    assert Path("distinct/corpus.lines.txt").read_text() == "2\n"
    assert "`corpus_of_file` of the workload distinct raised ValueError: broken." in capsys.readouterr().err
    assert logged_errors(caplog) == [ValueError]


def test_corpus_that_cannot_be_checked_fails_alone(run_script, capsys, caplog):
    for runs in (1, 2):
        assert run_script(with_broken_method("corpus_error"), a=b"1\n2\n", b=b"3\n") == 1
        assert Path("distinct/a_OUTPUT.lines.txt").read_text() == "2\n"
        assert "could not check its outputs: ValueError: broken" in capsys.readouterr().out
        assert logged_errors(caplog) == [ValueError] * runs


def test_unreadable_known_corpus_is_made_again(run_script, capsys):
    assert run_script(DISTINCT_LINES, a=b"1\n", b=b"2\n") == 0
    assert run_script(with_broken_method("corpus_error")) == 1
    assert "`corpus_error` of the workload distinct raised ValueError: broken." in capsys.readouterr().err


def test_error_in_repeat_command_keeps_reason(run_script, prefect_api, capsys):
    broken = "def repeat_command(self, file):\n        return 1 / 0\n\n    def output_error("
    assert run_script(MAX_LINES.replace("def output_error(", broken), good=b"12345", bad=b"\xff", other=b"\xff") == 1
    printed = capsys.readouterr()
    assert "failed: bad.txt is not UTF-8 text at byte 0 [input]" in printed.out
    assert printed.err.count("`repeat_command` of the workload longest raised ZeroDivisionError") == 1
    assert "not UTF-8 text at byte 0" in artifacts(prefect_api, "longest-failures")["data"]


def test_missing_output_is_named(run_script, capsys):
    assert run_script(LINE_COUNTS.replace("> lines.txt", "> lines.tx"), a=b"1") == 1
    assert "Its Batch task succeeded, but did not leave lines.txt in the container" in capsys.readouterr().out


def test_batch_tasks_have_limit_variables_and_slots(run_script, monkeypatch):
    sent = []
    create = batch._task
    monkeypatch.setattr(batch, "_task", lambda spec: sent.append(create(spec)) or sent[-1])
    text = b"abc" * 1000
    run_script(COMPRESSED, a=text)
    assert int(Path("compressed/a_OUTPUT.size.txt").read_text()) == len(zlib.compress(text, 9))
    [task] = [each.as_dict() for each in sent]
    assert task["requiredSlots"] == 2
    assert task["constraints"]["maxWallClockTime"] == "PT10M00S"
    assert task["environmentSettings"] == [{"name": "LEVEL", "value": "9"}]
    assert task["containerSettings"]["imageName"] == "python:3.12-slim"
