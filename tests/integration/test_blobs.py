"""Runs with inputs in Blob Storage, which nodes read where they are."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests_support import REPOSITORY, independent_count, new_container

from tasks.azure.accounts import blob_account

TEXT = "one two two {}"


@pytest.fixture
def texts(azure_settings):
    """A container for inputs, which is deleted afterwards."""
    with new_container(blob_account(), "texts") as name:
        yield blob_account()._service.get_container_client(name)


def upload(texts, contents):
    for name, content in contents.items():
        texts.upload_blob(name, content, overwrite=True)


def state_of(texts):
    return {blob.name: (blob.etag, blob.size) for blob in texts.list_blobs()}


@pytest.mark.parametrize("files_per_task", ["auto", "4"])
def test_blobs_are_counted_where_they_are(topn, texts, storage_requests, assert_nothing_left, files_per_task):
    names = [f"year {year}/m%20{month}/+#{number}?.txt" for year in (1, 2) for month in (1, 2) for number in range(2)]
    contents = {name: TEXT.format(name).encode() for name in names}
    contents["empty.txt"] = b""
    upload(texts, contents | {"notes.md": b"no input", "year 1/": b""})
    # A folder in a hierarchical namespace.
    texts.upload_blob("folder.txt", b"", metadata={"hdi_isfolder": "true"})
    before = state_of(texts)
    storage_requests.clear()
    inputs = f"az://{texts.container_name}/**/*.txt"

    found = topn.json(inputs, "--files-per-task", files_per_task)

    assert {file["file"]: file["top"] for file in found["files"]} == {
        name: independent_count(content.decode())[2] for name, content in contents.items()
    }
    of_inputs = [sent for sent in storage_requests if f"/{texts.container_name}" in sent.path]
    assert {(sent.method, "comp=list" in sent.query) for sent in of_inputs} == {("GET", True)}
    assert state_of(texts) == before
    manifest = json.loads(Path("results/manifest.json").read_text())
    assert {entry["name"]: entry["etag"] for entry in manifest["inputs"]} == {
        name: before[name][0].strip('"') for name in contents
    }

    storage_requests.clear()
    again = topn.json(inputs)
    assert (again["counted"], again["unchanged"]) == (0, len(contents))
    assert {(sent.method, "comp=list" in sent.query) for sent in storage_requests} == {("GET", True)}
    upload(texts, {names[0]: b"changed"})
    assert topn.json(inputs)["counted"] == 1
    assert_nothing_left()


def test_bad_blobs_fail_alone(topn, texts):
    upload(texts, {f"{number}.txt": TEXT.format(number) for number in range(4)})
    upload(texts, {"nul.txt": b"a\x00b", "latin.txt": b"\xe9t\xe9", "archived.txt": b"cold"})
    texts.get_blob_client("archived.txt").set_standard_blob_tier("Archive")

    found = topn.json(f"az://{texts.container_name}", "--files-per-task", "3", status=1)

    errors = {file["file"]: file["error"]["message"] for file in found["files"] if file.get("error")}
    assert errors == {
        "archived.txt": "archived.txt is archived: rehydrate it first",
        "latin.txt": "latin.txt is not UTF-8 text (byte 0xe9 at offset 0)",
        "nul.txt": "nul.txt has a NUL byte at offset 1",
    }
    assert found["counted"] == 4


def test_local_files_and_blobs_share_run_and_results(topn, texts):
    upload(texts, {"a.txt": b"same text", "b.txt": b"another"})
    Path("c.txt").write_text("third")
    found = topn.json("c.txt", f"az://{texts.container_name}", "--files-per-task", "3")
    assert {file["file"]: file["sha256"][:6] for file in found["files"]}.keys() == {"a.txt", "b.txt", "c.txt"}
    # A blob is known by its content once it has been counted.
    Path("copy.txt").write_text("same text")
    assert topn.json("copy.txt")["unchanged"] == 1


def test_page_about_blobs_works(topn, local_azure, monkeypatch, capsys):
    page = (REPOSITORY / "docs/blobs.md").read_text()
    upload_folder, load_table = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    [command] = re.findall(r"^\$ \.venv/bin/topn (run .*)$", page, re.MULTILINE)
    shutil.copytree(REPOSITORY / "data", "data")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", local_azure.connection_string)
    names = {}
    exec(upload_folder, names)
    try:
        done = topn(*shlex.split(command))
        assert done.returncode == 0, done.stderr
        exec(load_table, names)
        assert "hamlet.txt" in capsys.readouterr().out
    finally:
        for container in ("counts", "texts"):
            names["account"].delete_container(container)


def test_plan_lists_blobs(topn, texts):
    upload(texts, {"a.txt": b"text", "b.txt": b"text"})
    done = topn("plan", f"az://{texts.container_name}/*.txt")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "2 new, 0 unchanged, 0 invalid.")
    missing = topn("plan", "az://no-such-container/*.txt")
    assert missing.returncode == 2
    assert "The container of az://no-such-container/*.txt does not exist." in missing.stderr


def test_unusable_place_of_blobs_exits_2(topn, texts, assert_nothing_left):
    for given, reason in (
        ("az://no-such-container/*.txt", "does not exist. Check its name"),
        (f"az://{texts.container_name}/*.txt", "matches no blob"),
        ("https://no-such-account.blob.core.windows.net/texts/*.txt", "no-such-account"),
    ):
        done = topn("run", given)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert reason in done.stderr.splitlines()[-1]
        assert not Path("results").exists()
    assert_nothing_left()
