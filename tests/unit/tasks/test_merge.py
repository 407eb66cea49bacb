"""Planning the merges of a run, and keeping partials, in an in-memory storage account."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from run_reports import PROVENANCE
from simulation.storage import InProcessSession, MemoryStorage

from localbatch.processes.azurite import STORAGE_ACCOUNT, STORAGE_KEY
from tasks.azure import transport
from tasks.azure.blob import BlobAccount
from tasks.azure.settings import AzureSettings
from tasks.errors import ConfigurationError
from tasks.model import corpus
from tasks.model.chunks import Chunk, FinishedChunk, Pack, StagedChunk
from tasks.model.inputs import LocalFiles, find_inputs
from tasks.model.naming import FILES_FOLDER, PARTIALS_CONTAINER, PARTIALS_METADATA
from tasks.model.outputs import Outputs
from tasks.model.run import BatchJob, Containers
from tasks.model.verdict import BatchTaskOutcome, Category, StoredResult
from tasks.steps.collect import collect_chunk
from tasks.steps.merge import chunks_of_level, corpus_verdict, create_merges, expected_merges
from tasks.steps.plan import create_plan, kept_partials
from tasks.steps.provision import ensure_partials_container
from tasks.steps.sweep import sweep_partials
from tasks.workload.base import Merge, Workload
from tasks.workload.packs import PARTIALS
from tasks.workload.results_store import FolderStore
from tasks.workload.word_counts import CORPUS_OUTPUT, OUTPUT, PARTIAL, word_count_workload

RUN = Containers.of("run")
JOB = BatchJob(job_id="j", pool_id="p", files_variable="")
WORDS = word_count_workload(3, ignore_case=False, corpus=True)


@pytest.fixture
def account(monkeypatch):
    storage = MemoryStorage(STORAGE_ACCOUNT, STORAGE_KEY, lambda: datetime.now(timezone.utc))
    monkeypatch.setattr(transport, "Session", lambda: InProcessSession(storage.answer))
    monkeypatch.setattr(corpus, "MAX_WIDTH", 3)
    settings = AzureSettings(
        storage_endpoint=storage.endpoint, storage_account=STORAGE_ACCOUNT, storage_key=STORAGE_KEY
    )
    account = BlobAccount(settings)
    account.create_container(RUN.outputs, {})
    return account


class Runs:
    """Runs in which nodes write invented outputs at once."""

    def __init__(self, account, folder):
        self.account = account
        self.store = FolderStore(folder / "store")
        self.folder = folder / "in"
        self.folder.mkdir()

    def plan(self, workload=WORDS, **options):
        found = find_inputs(LocalFiles(inputs=[str(self.folder)]))
        partials = kept_partials(self.account, FILES_FOLDER)
        return create_plan(found, workload, self.store, partials, **options)

    def __call__(self, workload=WORDS, *, failing=(), **options):
        """Process the new files and merge; return the plan, the verdicts, the merges, and their verdicts."""
        ensure_partials_container(self.account)
        plan = self.plan(workload, **options)
        verdicts = {key: each for chunk in plan.chunks for key, each in self.collect(chunk, workload, failing).items()}
        merges = create_merges(
            plan, verdicts, workload, self.store, self.account, refresh=options.get("refresh", False)
        )
        merged = {}
        for level in range(len(merges.levels)):
            chunks, merge_workload = chunks_of_level(merges, level, merged, workload)
            for chunk in chunks:
                merged |= self.collect(chunk, merge_workload, failing)
        return plan, verdicts, merges, merged

    def collect(self, chunk, workload, failing=()):
        """Write the outputs of the Batch tasks of a chunk, and collect them."""
        outcomes = {}
        for pack in chunk.packs:
            failed = pack.task_id[:2] in failing
            outcomes[pack.task_id] = BatchTaskOutcome(
                task_id=pack.task_id,
                state="completed",
                result="failure" if failed else "success",
                exit_code=int(failed),
                failure_code="FailureExitCode" if failed else None,
            )
            counts = {"sha256": pack.files[0].sha256, "bytes": 1, "words": 1, "distinct": 1, "top": [["a", 1]]}
            written = dict.fromkeys(workload.outputs, json.dumps(counts).encode())
            if workload.merge is not None:
                written[workload.merge.partial] = b"partial"
            for name, content in written.items() if not failed else ():
                self.account.upload_bytes(RUN.outputs, f"{pack.task_id}/{name}", content)
        finished = FinishedChunk(submitted=StagedChunk(chunk=chunk, staged=chunk.packs, failures={}), outcomes=outcomes)
        return collect_chunk(self.account, self.store, finished, JOB, workload, RUN)


@pytest.fixture
def runs(account, tmp_path):
    made = Runs(account, tmp_path)
    for number in range(12):
        (made.folder / f"{number}.txt").write_text(f"content {number}")
    return made


def counts_of(made):
    """Return the number of processed files and that of merges on each level."""
    plan, _, merges, _ = made
    return plan.new_file_count, [len(level) for level in merges.levels]


def test_unchanged_files_need_no_merge(runs):
    new, levels = counts_of(first := runs())
    assert (new, len(levels)) == (12, 3)
    assert counts_of(second := runs()) == (0, [])
    assert corpus_verdict(*second[2:]).outputs[CORPUS_OUTPUT] == corpus_verdict(*first[2:]).outputs[CORPUS_OUTPUT]


def test_changed_file_needs_one_merge_per_level(runs):
    runs()
    (runs.folder / "5.txt").write_text("changed")
    assert expected_merges(runs.plan()) <= 3
    new, levels = counts_of(runs())
    assert (new, max(levels)) == (1, 1)


def test_removed_file_needs_only_merges(runs):
    runs()
    (runs.folder / "5.txt").unlink()
    new, levels = counts_of(runs())
    assert (new, max(levels)) == (0, 1)


def test_other_number_of_words_shares_merges(runs):
    runs()
    other = word_count_workload(5, ignore_case=False, corpus=True)
    assert counts_of(runs(other)) == (12, [1])


@pytest.mark.parametrize("options", [{"ignore_case": True}, {"ignore_case": False, "encoding": "latin-1"}])
def test_other_words_share_nothing(runs, options):
    first = counts_of(runs())
    assert counts_of(runs(word_count_workload(3, corpus=True, **options))) == first


def test_results_without_corpus_are_made_again(runs):
    without = word_count_workload(3, ignore_case=False)
    plan = runs.plan(without)
    for chunk in plan.chunks:
        runs.collect(chunk, without)
    assert runs.plan(without).new_file_count == 0
    assert counts_of(runs())[0] == 12
    # A run without a corpus uses results with partials.
    assert runs.plan(without).new_file_count == 0


def test_missing_partial_is_made_again(runs, account):
    runs()
    account.delete_blob(PARTIALS_CONTAINER, min(kept_partials(account, FILES_FOLDER)))
    # The merges of the same partials are known.
    assert counts_of(runs()) == (1, [])


def test_refresh_makes_all_merges_again(runs):
    first = counts_of(runs())
    assert counts_of(runs(refresh=True)) == first


def test_corpus_of_one_file_needs_no_merge(runs):
    for number in range(1, 12):
        (runs.folder / f"{number}.txt").unlink()
    made = runs()
    assert counts_of(made) == (1, [])
    assert json.loads(corpus_verdict(*made[2:]).outputs[CORPUS_OUTPUT]) == {
        "words": 1,
        "distinct": 1,
        "top": [["a", 1]],
    }


def test_no_result_has_no_corpus(runs):
    *_, merges, merged = runs(failing={"f-"})
    assert (corpus_verdict(merges, merged), merges.levels) == (None, ())


@pytest.mark.parametrize("prefix", ["m-", "c-"])
def test_failed_merge_is_done_again(runs, prefix):
    *_, merges, merged = runs(failing={prefix})
    assert corpus_verdict(merges, merged).category is Category.PROGRAM
    again = runs()
    assert again[0].new_file_count == 0
    assert isinstance(corpus_verdict(*again[2:]), StoredResult)


def test_batch_task_without_partial_has_no_result(runs):
    [chunk, *_] = runs.plan().chunks
    workload = Workload(name="own", command="true", outputs=(OUTPUT,))
    merging = Workload(
        name="own", command="true", outputs=(OUTPUT,), merge=Merge(command="", corpus_command="", outputs=("o",))
    )
    runs.collect(chunk, workload)
    finished = FinishedChunk(
        submitted=StagedChunk(chunk=chunk, staged=chunk.packs, failures={}),
        outcomes={
            pack.task_id: BatchTaskOutcome(task_id=pack.task_id, state="completed", result="success", exit_code=0)
            for pack in chunk.packs
        },
    )
    for verdict in collect_chunk(runs.account, runs.store, finished, JOB, merging, RUN).values():
        assert verdict.category is Category.UPLOAD


def test_pack_keeps_one_archive_of_partials(runs, account):
    ensure_partials_container(account)
    plan = runs.plan(files_per_task=4)
    pack = plan.chunks[0].packs[0]
    account.upload_bytes(RUN.outputs, f"{pack.task_id}/{PARTIALS}", b"archive")
    outcome = BatchTaskOutcome(task_id=pack.task_id, state="completed", result="success", exit_code=0)
    chunk = Chunk(first=1, total=4, packs=(Pack(task_id=pack.task_id, is_archive=True, files=pack.files),))
    finished = FinishedChunk(
        submitted=StagedChunk(chunk=chunk, staged=chunk.packs, failures={}), outcomes={pack.task_id: outcome}
    )
    collect_chunk(account, runs.store, finished, JOB, WORDS, RUN)
    assert kept_partials(account, FILES_FOLDER) == {f"{FILES_FOLDER}{RUN.outputs}/{pack.task_id}"}


def test_stored_result_keeps_its_partial(runs):
    runs()
    [(key, result), *_] = runs.plan().unchanged.items()
    assert runs.store.get(key).partial == result.partial
    assert result.partial.blob.startswith(FILES_FOLDER)
    assert WORDS.merge.partial == PARTIAL


def test_sweep_deletes_old_partials_only(runs, account):
    runs()
    before = kept_partials(account, "")
    assert sweep_partials(account, timedelta(days=1)) == 0
    assert sweep_partials(account, timedelta(0), dry_run=True) == len(before)
    assert kept_partials(account, "") == before
    assert sweep_partials(account, timedelta(0)) == len(before)
    assert kept_partials(account, "") == frozenset()
    assert counts_of(runs())[0] == 12


def test_container_of_somebody_else_is_not_used(account):
    account.create_container(PARTIALS_CONTAINER, {"owner": "somebody"})
    with pytest.raises(ConfigurationError, match=r"topn-partials.*--no-corpus"):
        ensure_partials_container(account)
    assert account.get_container_metadata(PARTIALS_CONTAINER) != PARTIALS_METADATA


def test_unknown_corpus_is_not_used(runs):
    """A stored corpus that the workload rejects is made again."""
    *_, merges, _ = runs()
    damaged = StoredResult(outputs=Outputs.of({CORPUS_OUTPUT: b"{}"}), provenance=PROVENANCE)
    runs.store.put(merges.last.key, damaged)
    assert counts_of(runs()) == (0, [1])
