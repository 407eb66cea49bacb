"""Collect what the Batch tasks of dead runs have finished, so that it is not done again, and sweep these runs.

The id of a Batch task says which content it has processed. For a pack, the folders in its results archive do.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from prefect.runtime import flow_run

from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.errors import ServiceError
from tasks.model.chunks import Chunk, FinishedChunk, Pack, StagedChunk
from tasks.model.cleanup import Cleanup
from tasks.model.corpus import merge_input
from tasks.model.files import InputFile
from tasks.model.naming import is_archive_task, is_last_merge, merge_key
from tasks.model.plan import Plan
from tasks.model.run import BatchJob, Containers
from tasks.model.verdict import BatchTaskOutcome, Category, FileError, StoredResult, Verdict
from tasks.progress import advance, notify
from tasks.steps.collect import collect_chunk
from tasks.steps.plan import with_results
from tasks.steps.step import log, step, warn
from tasks.steps.sweep import DeadRun, log_sweep, sweep
from tasks.text import quantity
from tasks.workload.base import Workload
from tasks.workload.results_store import ResultsStore, results_store


@step("sweep", retries=0)
def sweep_before_run(plan: Plan, workload: Workload, refresh: bool, files_per_task: int | None) -> Plan:
    """Delete what dead runs left behind, after collecting the results that the plan needs.

    Returns:
        The plan of what remains to be done.
    """
    batch, blobs = batch_account(), blob_account()
    store = results_store(str(flow_run.id), warn)
    by_content = {file.content_key: file for file in plan.files}
    collected: dict[str, StoredResult] = {}

    def collect(dead: DeadRun) -> bool:
        if refresh:
            return False
        results, is_complete = collect_dead_results(batch, blobs, store, dead, by_content, plan.unchanged, workload)
        collected.update(results)
        return is_complete

    swept = sweep(batch, blobs, collect=collect)
    log_sweep(swept)
    if swept.remaining:
        notify(f"Dead runs left something behind. {Cleanup(remaining=swept.remaining).problem}")
    if collected:
        log(f"Collected {quantity(len(collected), 'result')} of dead runs.")
        plan = with_results(plan, collected, files_per_task)
    for stage in ("staged", "submitted", "completed"):
        advance(stage, total=plan.new_file_count)
    return plan


def collect_dead_results(
    batch: BatchAccount,
    blobs: BlobAccount,
    store: ResultsStore,
    dead: DeadRun,
    files: Mapping[str, InputFile],
    known: Container[str],
    workload: Workload,
) -> tuple[dict[str, StoredResult], bool]:
    """Collect the results that a dead run has for these files, with the usual verdict on each Batch task.

    Args:
        batch: The Batch account.
        blobs: The storage account.
        store: Where the results are kept.
        dead: The dead run.
        files: The files by content key.
        known: Content keys of the files that have a result already.
        workload: The workload that the files need.

    Returns:
        The results by content key, and whether the run has no other results.
    """
    results: dict[str, StoredResult] = {}
    missing = dict(files)
    singles = {pack.task_id: pack for pack in (Pack.of([file]) for file in files.values())}
    has_others = False
    try:
        for job_id, pool_id, outcome in _successes(batch, dead):
            pack, work = singles.get(outcome.task_id), workload
            if is_archive_task(outcome.task_id):
                pack = Pack(task_id=outcome.task_id, is_archive=True, files=tuple(missing.values()))
            elif (key := merge_key(outcome.task_id)) is not None and workload.merge is not None:
                # It is kept, whether this run needs it or not.
                pack = Pack(task_id=outcome.task_id, is_archive=False, files=(merge_input(key),))
                work = workload.merge_workload(is_last=is_last_merge(outcome.task_id))
            if pack is None:
                has_others = True
                continue
            if not pack.is_archive and pack.files[0].content_key in known:
                continue
            verdicts = collect_chunk(
                blobs,
                store,
                _finished(pack, outcome),
                BatchJob(job_id=job_id, pool_id=pool_id, files_variable=""),
                work,
                Containers.of(dead.name),
                only_in_archive=True,
            )
            has_others = has_others or not verdicts or any(map(_may_be_found_later, verdicts.values()))
            results |= {
                key: verdict
                for key, verdict in verdicts.items()
                if isinstance(verdict, StoredResult) and missing.pop(key, None) is not None
            }
    except ServiceError as error:
        warn(f"Some results of a dead run could not be collected: {error}")
        return results, False
    return results, not has_others


def _successes(batch: BatchAccount, dead: DeadRun) -> Iterator[tuple[str, str, BatchTaskOutcome]]:
    """Yield job, pool and outcome of each Batch task of a dead run that succeeded."""
    for job in dead.jobs:
        for _, outcome in batch.list_completed_tasks(job.job_id, None):
            if outcome.result == "success":
                yield job.job_id, job.pool_id, outcome


def _may_be_found_later(verdict: Verdict) -> bool:
    return isinstance(verdict, FileError) and verdict.category is Category.UPLOAD


def _finished(pack: Pack, outcome: BatchTaskOutcome) -> FinishedChunk:
    chunk = Chunk(first=1, total=len(pack.files), packs=(pack,))
    submitted = StagedChunk(chunk=chunk, staged=(pack,), failures={})
    return FinishedChunk(submitted=submitted, outcomes={outcome.task_id: outcome})
