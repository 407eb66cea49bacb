"""Outputs in Blob Storage: `--output`, `--table` and `--report` at a place there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests_support import new_container, read_blob


@pytest.fixture
def blobs(topn):
    from tasks.azure.accounts import blob_account  # noqa: PLC0415 - after the environment is clean

    with topn.environ():
        return blob_account()


@pytest.fixture
def container(blobs):
    with new_container(blobs, "out") as name:
        yield name


@pytest.fixture(autouse=True)
def texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("data/a.txt", "one two two"), ("data/b/c.md", "three")):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)


def listed(blobs, container, prefix=""):
    return {blob.name: blob.etag for blob in blobs.list_blobs(container, prefix)}


def test_run_writes_outputs_to_a_place(topn, blobs, container, assert_nothing_left):
    options = ("data", "--output", f"az://{container}/nightly", "--report", f"az://{container}/nightly")
    done = topn("run", *options, "--table", f"az://{container}/nightly/tables/all.jsonl")
    assert done.returncode == 0, done.stderr
    place = f"{blobs.endpoint}/{container}/nightly"
    assert f"Outputs are in {place}/" in done.stdout
    assert f"The report is {place}/report.html" in done.stderr
    before = listed(blobs, container)
    names = ("a_OUTPUT.txt", "a_OUTPUT.json", "b/c.md_OUTPUT.txt", "b/c.md_OUTPUT.json", "corpus.txt", "corpus.json")
    assert set(before) == {
        *(f"nightly/{name}" for name in (*names, "manifest.json", "results.csv", "report.html", "tables/all.jsonl"))
    }
    assert json.loads(read_blob(blobs, container, "nightly/a_OUTPUT.json"))["top"] == [["two", 2], ["one", 1]]
    manifest = json.loads(read_blob(blobs, container, "nightly/manifest.json"))
    assert manifest["status"] == "completed"
    assert manifest["documents"] == ["corpus.json", "corpus.txt", "report.html", "results.csv", "tables/all.jsonl"]
    assert 'href="b/c.md_OUTPUT.txt"' in read_blob(blobs, container, "nightly/report.html").decode()
    assert not Path("results").exists()
    assert_nothing_left()

    Path("data/a.txt").write_text("changed")
    again = topn.json(*options, "--table", f"az://{container}/nightly/tables/all.jsonl")
    assert (again["counted"], again["unchanged"]) == (1, 1)
    after = listed(blobs, container)
    assert set(after) == set(before)
    page = read_blob(blobs, container, "nightly/report.html").decode()
    assert "1 changed; 1 with the same content." in page
    assert "<td>Words in all files</td><td>4</td><td>2</td>" in page
    assert re.search(r"<td>counted<td>changed<td>1<td>1<td>changed 1$", page, re.MULTILINE)
    unchanged = {name.removeprefix("nightly/") for name in after if after[name] == before[name]}
    assert unchanged == {"b/c.md_OUTPUT.txt", "b/c.md_OUTPUT.json"}


def test_blobs_in_and_out(topn, blobs, container, assert_nothing_left):
    for name, text in (("in/a.txt", "one two two"), ("in/b//c.txt", "three")):
        blobs.upload_bytes(container, name, text.encode())
    given = (f"az://{container}/in", "--output", f"az://{container}/out")
    assert topn.json(*given)["counted"] == 2
    assert {name for name in listed(blobs, container, "out/") if name.endswith(".json")} == {
        "out/a_OUTPUT.json",
        "out/b/%2F/c_OUTPUT.json",
        "out/corpus.json",
        "out/manifest.json",
    }
    before = listed(blobs, container)
    assert topn.json(*given)["unchanged"] == 2
    after = listed(blobs, container)
    assert {name for name in after if after[name] != before[name]} == {"out/manifest.json"}
    done = topn("run", f"az://{container}", "--output", f"az://{container}/out")
    assert (done.returncode, "is within the input" in done.stderr) == (2, True)
    assert_nothing_left()


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "az://missing/x"), "The container `missing` does not exist"),
        (("--output", "az://CONTAINER/x?sv=1&sig=abc"), "a signature"),
        (("--output", "az://CONTAINER/taken"), "results.csv` is in the way"),
        (("--output", "https://nowhere.blob.core.windows.net.invalid/out"), "cannot be"),
    ],
)
def test_unusable_place_is_a_usage_error(topn, blobs, container, command, options, message, assert_nothing_left):
    blobs.upload_bytes(container, "taken/results.csv", b"mine")
    done = topn(command, "data", *(option.replace("CONTAINER", container) for option in options))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "abc" not in done.stderr
    assert "Traceback" not in done.stderr
    assert list(listed(blobs, container)) == ["taken/results.csv"]
    assert_nothing_left()


@pytest.mark.parametrize("place", [".", "az://CONTAINER"])
def test_report_of_user_is_never_replaced(topn, blobs, container, place):
    blobs.upload_bytes(container, "report.html", b"mine")
    Path("report.html").write_text("mine")
    done = topn("run", "data", "--report", place.replace("CONTAINER", container))
    assert done.returncode == 2, done.stderr
    assert "report.html` is in the way" in done.stderr
    assert (read_blob(blobs, container, "report.html"), Path("report.html").read_text()) == (b"mine", "mine")
