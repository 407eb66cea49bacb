"""Large outputs of own workloads, which are copied inside Storage and never pass through the process of the flow."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_support import new_container, read_blob

from tasks.azure import blob
from tasks.azure.accounts import blob_account
from tasks.azure.blob_outputs import BlobOutput
from tasks.azure.transport import CheckedTransport
from tasks.errors import OutputError
from tasks.workload.base import Workload
from tasks.workload.result_documents import MAX_INLINE_BYTES

OUTPUT_BYTES = 3_000_000

REPEATED = Workload(
    name="repeated",
    command=f'yes "$(cat input)" | head -c {OUTPUT_BYTES} > large.csv && wc -c < input > small.txt',
    outputs=("large.csv", "small.txt"),
)


def repeated(text):
    return (f"{text}\n" * (OUTPUT_BYTES // len(text)))[:OUTPUT_BYTES].encode()


@pytest.fixture
def container(azure_settings):
    """A container for inputs, outputs and stored results."""
    with new_container(blob_account(), "own") as name:
        yield name


@pytest.fixture
def run(topn, container, tmp_path, monkeypatch, assert_nothing_left):
    """Return a function that runs the workload on a file and a blob, and returns the report."""
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("one two")
    blob_account().upload_bytes(container, "in/b.txt", b"three")

    def run_flow(output_folder, results="az://{}/known", **options):
        from flows.topn import run_workload, workload_flow  # noqa: PLC0415 - after the environment is clean

        @workload_flow("repeated")
        def flow():
            inputs = ["a.txt", f"az://{container}/in/*.txt"]
            return run_workload(REPEATED, inputs, output_folder.format(container), **options)

        with topn.environ(TOPN_RESULTS=results.format(container)):
            try:
                return flow()
            finally:
                assert_nothing_left()

    return run_flow


def assert_right(container):
    for name, text in (("a", "one two"), ("b", "three")):
        assert read_blob(blob_account(), container, f"out/{name}_OUTPUT.large.csv") == repeated(text)


def test_flow_transfers_only_first_bytes(run, container, storage_requests):
    report = run("az://{}/out")
    assert max(sent.received_bytes for sent in storage_requests) <= MAX_INLINE_BYTES
    assert max(sent.sent_bytes for sent in storage_requests) <= MAX_INLINE_BYTES

    assert_right(container)
    account = blob_account()
    assert read_blob(account, container, "out/a_OUTPUT.small.txt") == b"7\n"
    table = read_blob(account, container, "out/results.csv").decode().splitlines()
    assert table[1:] == ["a.txt,one two,7", "b.txt,three,5"]
    # The outputs can be read after the containers of the run are deleted.
    outputs = [file.result.outputs.parts["large.csv"] for file in report.files]
    assert all(isinstance(output, BlobOutput) for output in outputs)
    assert [output.read() for output in outputs] == [repeated("one two"), repeated("three")]

    before = {each.name: each.etag for each in blob_account().list_blobs(container)}
    storage_requests.clear()
    again = run("az://{}/out")
    assert again.count("unchanged") == 2
    after = {each.name: each.etag for each in blob_account().list_blobs(container)}
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name for name in changed if not name.startswith("known/runs/")} == {"out/manifest.json"}
    assert max(sent.received_bytes for sent in storage_requests) <= MAX_INLINE_BYTES
    assert max(sent.sent_bytes for sent in storage_requests) <= MAX_INLINE_BYTES


def test_changed_stored_output_is_made_again(run, container):
    run("az://{}/out")
    account = blob_account()
    [copy] = [each.name for each in account.list_blobs(container, "known/") if "large.csv" in each.name][:1]
    account.upload_bytes(container, copy, b"damaged")
    report = run("az://{}/out")
    assert (report.count("done"), report.count("unchanged")) == (1, 1)
    assert_right(container)


@pytest.mark.parametrize(
    ("place", "results", "options"),
    [
        ("out", "az://{}/known", {}),
        ("az://{}/out", "known", {}),
        ("az://{}/out", "az://{}/known", {"files_per_task": 2}),
    ],
    ids=["folder", "store in a folder", "pack"],
)
def test_other_outputs_pass_through_the_flow(run, container, place, results, options):
    report = run(place, results, **options)
    assert not any(isinstance(file.result.outputs.parts["large.csv"], BlobOutput) for file in report.files)
    for name, text in (("a", "one two"), ("b", "three")):
        output = f"out/{name}_OUTPUT.large.csv"
        content = read_blob(blob_account(), container, output) if "://" in place else Path(output).read_bytes()
        assert content == repeated(text)


@pytest.fixture
def lost_store(container, monkeypatch):
    """Return a function that creates a results store, which is deleted before the flow sends a certain request."""
    account = blob_account()
    send = CheckedTransport.send

    def create(is_last):
        name = f"{container}-known"
        account.create_container(name, {})

        def delete_before(transport, request, **options):
            if is_last(request):
                account.delete_container(name)
            return send(transport, request, **options)

        monkeypatch.setattr(CheckedTransport, "send", delete_before)
        return f"az://{name}/known"

    return create


def writes_manifest(request):
    is_check = request.headers.get("If-Match") == blob.NO_ETAG
    return request.method == "PUT" and "/out/manifest.json" in request.url and not is_check


def test_lost_outputs_are_an_output_error(run, container, lost_store):
    store = lost_store(writes_manifest)
    with pytest.raises(OutputError, match=r"a_OUTPUT \(Storage could not copy a blob to"):
        run("az://{}/out", store)
    assert "out/a_OUTPUT.large.csv" not in {each.name for each in blob_account().list_blobs(container)}


def creates_containers(request):
    return request.method == "PUT" and "restype=container" in request.url


def test_outputs_without_store_are_copied(run, container, lost_store, monkeypatch):
    monkeypatch.setattr(blob, "MAX_SYNC_COPY_BYTES", 0)
    report = run("az://{}/out", lost_store(creates_containers))
    assert_right(container)
    assert {file.result.outputs.parts["large.csv"].container[:5] for file in report.files} == {"topn-"}
