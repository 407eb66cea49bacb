"""The steps of a run on the local Azure: staging, submission and collection."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace

import pytest

from tasks.azure.values import BatchTaskSpec
from tasks.errors import ConfigurationError, ServiceError
from tasks.model.verdict import Category, FileError, StoredResult
from tasks.steps.collect import collect_chunk
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import submit_chunk
from tasks.workload.results_store import ContainerStore, FolderStore, results_store
from tasks.workload.word_counts import counts_of


@pytest.fixture
def count(process):
    """Return a function that processes a chunk and returns its verdicts in order."""
    return lambda *arguments: process(*arguments)[1]


def test_file_is_counted_by_own_batch_task(count, chunk_factory, run):
    [verdict] = count(chunk_factory(b"one two two three three three"))
    assert isinstance(verdict, StoredResult)
    assert counts_of(verdict).top == (("three", 3), ("two", 2), ("one", 1))
    assert verdict.provenance.job_id == verdict.provenance.pool_id == run.name
    assert verdict.provenance.node_id.startswith("tvm")


def test_bad_file_fails_alone_with_offset(count, chunk_factory):
    good, bad_utf8, nul = count(chunk_factory(b"fine", b"abc\xffdef", b"ab\0cd"))
    assert isinstance(good, StoredResult)
    assert bad_utf8.category is nul.category is Category.INPUT
    assert re.search(r"^1\.txt .* offset 3", bad_utf8.message)
    assert re.search(r"^2\.txt .* offset 2", nul.message)
    assert bad_utf8.exit_code == 1
    assert bad_utf8.stderr.count("offset 3") == 1
    assert bad_utf8.attempts == nul.attempts == 1


def test_program_can_succeed_in_second_attempt(count, chunk_factory, workload):
    once = "mkdir failed_once 2>mkdir.txt && exit 3"
    [verdict] = count(chunk_factory(b"text"), replace(workload, command=f"{once}; {workload.command}"))
    assert isinstance(verdict, StoredResult)


def test_commands_are_run_as_they_are(count, chunk_factory, workload):
    """`set -e` of a command has its effect, and a comment at its end has none on what follows."""
    [verdict] = count(chunk_factory(b"text"), replace(workload, command="set -e\nfalse\nexit 0 # comment"))
    assert (verdict.category, verdict.exit_code, verdict.attempts) == (Category.PROGRAM, 1, 2)


def test_failed_program_reports_exit_code_and_stderr(count, chunk_factory, workload):
    [verdict] = count(chunk_factory(b"text"), replace(workload, command=f"{workload.command} --no-such-option"))
    assert verdict.category is Category.PROGRAM
    assert verdict.exit_code == 2
    assert verdict.stderr.count("unrecognized arguments: '--no-such-option'") == 2
    assert verdict.attempts == 2
    assert verdict.node_id.startswith("tvm")
    assert verdict.repeat_command.startswith("python -m task_script --num-words 3 -- ")


def test_missing_resource_file_has_own_category(
    count, chunk_factory, blobs, parts, batch, run, workload, tmp_path, watch_chunk
):
    containers, job = parts
    chunk = chunk_factory(b"text")
    staged = replace(
        stage_chunk(blobs, chunk, workload, containers),
        staged=(replace(chunk.packs[0], files=(replace(chunk.files[0], sha256="0" * 64),)),),
    )
    submitted = submit_chunk(batch, blobs, run, staged, job, workload, containers)
    finished = watch_chunk(submitted, job, containers)
    verdicts = collect_chunk(blobs, FolderStore(tmp_path / "s"), finished, job, workload, containers)
    error = verdicts[chunk.files[0].content_key]
    assert error.category is Category.RESOURCE_FILE
    assert "BlobNotFound" in error.message


def test_success_without_output_is_no_result(blobs, batch, run, workload, parts, chunk_factory, tmp_path, watch_chunk):
    """Field report 14: a verdict needs the result, the exit code and the output."""
    containers, job = parts
    chunk = chunk_factory(b"text")
    submitted = submit_chunk(
        batch, blobs, run, stage_chunk(blobs, chunk, workload, containers), job, workload, containers
    )
    finished = watch_chunk(submitted, job, containers)
    blobs.delete_container(containers.outputs)
    blobs.create_container(containers.outputs, run.metadata(kept=False))
    [error] = collect_chunk(blobs, FolderStore(tmp_path / "s"), finished, job, workload, containers).values()
    assert error.category is Category.UPLOAD


@pytest.mark.parametrize(
    "forged", [b"{}", b"not json", b'{"sha256": "00", "bytes": 1, "words": 1, "distinct": 1, "top": []}']
)
def test_forged_output_is_no_result(blobs, batch, run, workload, parts, chunk_factory, tmp_path, forged, watch_chunk):
    containers, job = parts
    chunk = chunk_factory(b"text")
    submitted = submit_chunk(
        batch, blobs, run, stage_chunk(blobs, chunk, workload, containers), job, workload, containers
    )
    finished = watch_chunk(submitted, job, containers)
    blobs.upload_bytes(containers.outputs, f"{chunk.packs[0].task_id}/input_OUTPUT.json", forged)
    [error] = collect_chunk(blobs, FolderStore(tmp_path / "s"), finished, job, workload, containers).values()
    assert isinstance(error, FileError)


def test_changed_and_deleted_files_fail_alone(blobs, workload, parts, chunk_factory, tmp_path):
    chunk = chunk_factory(b"kept", b"changed", b"vanished")
    (tmp_path / "1.txt").write_bytes(b"changes")
    (tmp_path / "2.txt").unlink()
    staged = stage_chunk(blobs, chunk, workload, parts[0])
    assert [file.name for pack in staged.staged for file in pack.files] == ["0.txt"]
    assert {error.category for error in staged.failures.values()} == {Category.INPUT}
    assert len(staged.failures) == 2


def test_adding_batch_tasks_is_idempotent(batch, idle_job):
    specs = [
        BatchTaskSpec(task_id=f"t{i}", command_line="true", resource_files=(), uploads=(), retries=0)
        for i in range(250)
    ]
    ids = {spec.task_id for spec in specs}
    first, second = batch.add_tasks(idle_job, specs), batch.add_tasks(idle_job, specs)
    assert (first.rejected, first.existing) == ({}, set())
    assert (second.rejected, second.existing) == ({}, ids)
    counts = batch.get_task_counts(idle_job)
    assert counts.active + counts.running + counts.completed == 250


def test_oversized_request_is_halved(batch, idle_job, local_azure):
    specs = [
        BatchTaskSpec(task_id=f"big{i}", command_line="true " + "x" * 30_000, resource_files=(), uploads=(), retries=0)
        for i in range(60)
    ]
    assert batch.add_tasks(idle_job, specs).rejected == {}
    statuses = [record.status for record in list(local_azure.batch.requests) if idle_job in record.path]
    assert 413 in statuses
    assert batch.get_task_counts(idle_job).active == 60


def test_rejected_batch_task_is_named_and_others_added(batch, idle_job):
    good = BatchTaskSpec(task_id="good", command_line="true", resource_files=(), uploads=(), retries=0)
    refused = batch.add_tasks(idle_job, [good, replace(good, task_id="not an id!")])
    assert list(refused.rejected) == ["not an id!"]


def test_adding_to_missing_job_raises(batch):
    spec = BatchTaskSpec(task_id="t", command_line="true", resource_files=(), uploads=(), retries=0)
    with pytest.raises(ServiceError, match="JobNotFound"):
        batch.add_tasks("missing", [spec])


@pytest.mark.parametrize(
    ("location", "prefix"),
    [
        ("{endpoint}/{container}", ""),
        ("{endpoint}/{container}/", ""),
        ("{endpoint}/{container}/a%20b/c/", "a b/c/"),
        ("az://{container}", ""),
        ("az://{container}/a b/%20", "a b/%20/"),
    ],
)
def test_results_can_be_stored_in_blob_container(blobs, local_azure, monkeypatch, location, prefix):
    container = f"results-{uuid.uuid4().hex}"
    blobs.create_container(container, {})
    location = location.format(endpoint=local_azure.storage_endpoint, container=container)
    monkeypatch.setenv("TOPN_RESULTS", location)
    warnings = []
    store = results_store("run", warnings.append)
    assert isinstance(store, ContainerStore)
    assert store.get("0" * 64) is None
    assert warnings == []
    blobs.upload_bytes(container, f"{prefix}{'0' * 64}.json", b"damaged")
    assert store.get("0" * 64) is None
    assert "an entry is damaged" in warnings[0]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("az://missing", "names the container `missing`, which does not exist"),
        ("az://missing/prefix", "names the container `missing`, which does not exist"),
        ("az://", "not the URL of a blob container"),
        ("{endpoint}", "not the URL of a blob container"),
        ("{endpoint}/", "not the URL of a blob container"),
        ("az://A_B/c", "names the container `A_B`"),
        ("az://abc/../def", "an empty part, `.` or `..`"),
        ("{endpoint}/abc/x//y", "an empty part, `.` or `..`"),
        ("https://other.blob.core.windows.net/abc/x", "not a container of the storage account"),
        ("{endpoint}2/abc", "not a container of the storage account"),
        ("s3://abc/x", "not in Blob Storage"),
        ("az://abc/x?sv=1&sig=c2VjcmV0", "more than the address"),
    ],
)
def test_unusable_place_of_results_is_refused(local_azure, monkeypatch, blobs, location, words):
    monkeypatch.setenv("TOPN_RESULTS", location.format(endpoint=local_azure.storage_endpoint))
    with pytest.raises(ConfigurationError, match=re.escape(words)) as refusal:
        results_store("run", pytest.fail)
    assert "TOPN_RESULTS" in str(refusal.value)
    assert "c2VjcmV0" not in str(refusal.value)
