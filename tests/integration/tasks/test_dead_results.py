"""A run collects what a dead run has finished of its files, and knows whether that is all."""

from __future__ import annotations

import pytest
from tests_support import leftovers_of, wait_until

from tasks.steps import life
from tasks.steps.dead_results import collect_dead_results
from tasks.steps.sweep import DeadRun
from tasks.workload.results_store import FolderStore
from tasks.workload.word_counts import counts_of


@pytest.fixture
def finished(batch, blobs, run, parts, submitted, watch_chunk):
    """Return a function that lets the run count contents, and returns their files by content key."""
    containers, job = parts

    def do(*contents):
        chunk = submitted(*contents)
        watch_chunk(chunk, job, containers)
        return {file.content_key: file for file in chunk.chunk.files}

    return do


@pytest.fixture
def collect(batch, blobs, run, workload, tmp_path):
    """Return a function that collects the results of the run for some files, as if it had died."""

    def do(files, known=()):
        left = leftovers_of(batch, blobs, run.flow_run_id)
        dead = DeadRun(name=run.name, jobs=left.jobs, resources=left, may_have_results=True)
        return collect_dead_results(batch, blobs, FolderStore(tmp_path / "store"), dead, files, known, workload)

    return do


def test_all_results_of_dead_run_are_collected(finished, collect):
    files = finished(b"one two two", b"three")
    results, is_complete = collect(files)
    assert [counts_of(results[key]).words for key in files] == [3, 1]
    assert is_complete


def test_results_for_other_files_are_left(finished, collect):
    first, *_ = finished(b"one two two", b"three").items()
    results, is_complete = collect(dict([first]))
    assert list(results) == [first[0]]
    assert not is_complete


def test_known_results_are_not_collected_again(finished, collect):
    files = finished(b"one two two", b"three")
    first, second = files
    results, is_complete = collect(files, known={first})
    assert list(results) == [second]
    assert is_complete


def test_failed_file_keeps_no_dead_run(finished, collect):
    good, _ = files = finished(b"one two two", b"abc\xffdef")
    results, is_complete = collect(files)
    assert list(results) == [good]
    assert is_complete


def test_run_writes_its_heartbeat(blobs, run, monkeypatch, tmp_path):
    monkeypatch.setattr(life, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setenv("TOPN_STATE", str(tmp_path / "state"))
    name = run.containers.outputs
    blobs.create_container(name, {"owner": "before the heartbeat"})
    life.lock_run(run.flow_run_id)
    with life.heartbeat(run):
        wait_until(lambda: blobs.get_container_metadata(name) == run.metadata(kept=False), "the heartbeat is written")
    assert life.read_life_file(run.flow_run_id).is_alive
    life.mark_ended(run.flow_run_id)
    blobs.delete_container(name)
