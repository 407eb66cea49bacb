"""Plan the merges that make the corpus of a run from the partials of its files."""

from __future__ import annotations

from collections.abc import Container

from prefect.runtime import flow_run

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BlobAccount
from tasks.model.chunks import Chunk
from tasks.model.corpus import (
    Leaf,
    Merge,
    Merges,
    merge_chunks,
    merge_tree,
    missing_merges,
    position_of,
    verdict_on,
)
from tasks.model.files import InputFile
from tasks.model.naming import MERGES_FOLDER
from tasks.model.outputs import Outputs, Partial
from tasks.model.plan import Plan
from tasks.model.verdict import StoredResult, Verdict, counted
from tasks.progress import advance
from tasks.steps.collect import Verdicts
from tasks.steps.plan import kept_partials
from tasks.steps.step import call_hook, log, step, warn
from tasks.text import quantity
from tasks.workload.base import Workload
from tasks.workload.results_store import ResultsStore, results_store

# A workload may know the corpus of fewer files without a merge.
MIN_MERGED_FILES = 2


@step("plan merges")
def plan_merges(plan: Plan, verdicts: Verdicts, workload: Workload, refresh: bool) -> Merges:
    """Plan which partials to merge: those of all files with a result, unless that merge is known.

    Raises:
        ServiceError: The known merges cannot be listed.
    """
    if workload.merge is None:
        return Merges()
    store = results_store(str(flow_run.id), warn)
    merges = create_merges(plan, verdicts, workload, store, blob_account(), refresh=refresh)
    if merges.count:
        advance("merged", total=merges.count)
        log(f"The corpus of {quantity(merges.file_count, 'file')} needs {quantity(merges.count, 'merge')}.")
    return merges


def create_merges(
    plan: Plan,
    verdicts: Verdicts,
    workload: Workload,
    store: ResultsStore,
    account: BlobAccount,
    *,
    refresh: bool = False,
) -> Merges:
    """Plan the merges of a run.

    Args:
        plan: The plan of the run.
        verdicts: The verdicts on the files that the run has processed, by content key.
        workload: The workload, which has a merge.
        store: The store of known results.
        account: The storage account.
        refresh: Do known merges again.
    """
    results = {**plan.unchanged, **{key: each for key, each in verdicts.items() if isinstance(each, StoredResult)}}
    files = [(file, results[file.content_key]) for file in plan.files if file.content_key in results]
    if not files:
        return Merges()
    if len(files) < MIN_MERGED_FILES:
        [(file, result)] = files
        outputs = call_hook(workload, workload.corpus_of_file, None, counted(file, result), result)
        if outputs is not None:
            known = StoredResult(outputs=Outputs.of(outputs), provenance=result.provenance)
            return Merges(file_count=1, known=known)
    last = _tree(files, workload)
    known_corpus = None if refresh else store.get(last.key)
    if known_corpus is not None and not call_hook(workload, workload.corpus_error, "unreadable", known_corpus.outputs):
        return Merges(file_count=len(files), last=last, known=known_corpus)
    done = frozenset() if refresh else kept_partials(account, MERGES_FOLDER)
    levels = missing_merges(last, lambda merge: not merge.is_last and merge.partial.blob in done)
    return Merges(file_count=len(files), last=last, levels=tuple(map(tuple, levels)))


def expected_merges(plan: Plan) -> int:
    """Return how many merges a run of a plan needs, if no file fails and merges of unchanged files are known."""
    new = {file.content_key for chunk in plan.chunks for file in chunk.files}
    leaves = [
        Leaf(position=position_of(file.name), key=file.content_key, partial=Partial(blob=file.content_key))
        for file in plan.files
        if file.content_key not in plan.failures
    ]
    if not new or len(leaves) < MIN_MERGED_FILES:
        return 0
    last = merge_tree(leaves, lambda _: "")
    return sum(map(len, missing_merges(last, lambda merge: not _has_file(merge, new))))


def _has_file(merge: Merge, keys: Container[str]) -> bool:
    return any(_has_file(child, keys) if isinstance(child, Merge) else child.key in keys for child in merge.children)


def _tree(files: list[tuple[InputFile, StoredResult]], workload: Workload) -> Merge:
    leaves = [
        Leaf(
            position=position_of(file.name),
            key=workload.partial_key(counted(file, result).sha256, file.name),
            partial=result.partial,
        )
        for file, result in files
        if result.partial is not None
    ]
    keys = {is_last: workload.merge_workload(is_last=is_last).sha256 for is_last in (False, True)}
    return merge_tree(leaves, keys.__getitem__)


def chunks_of_level(
    merges: Merges, number: int, merged: Verdicts, workload: Workload
) -> tuple[tuple[Chunk, ...], Workload]:
    """Return the chunks of a level, and their workload. A merge of which a part failed is left out."""
    level = merges.levels[number]
    first = 1 + sum(map(len, merges.levels[:number]))
    name = workload.merge.partial if workload.merge else ""
    chunks = merge_chunks(level, merged, name, first, merges.count)
    return chunks, workload.merge_workload(is_last=level[0].is_last)


def corpus_verdict(merges: Merges, merged: Verdicts) -> Verdict | None:
    """Return the corpus, or why there is none; None without a merge or a result."""
    if merges.known is not None or merges.last is None:
        return merges.known
    return verdict_on(merges.last, merged)
