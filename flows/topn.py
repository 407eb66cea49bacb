"""The `topn` flow, which counts the most frequent words of many files, and `run_workload`, the body of such flows."""

# No `from __future__ import annotations`: Prefect sends a flow to another process without the names of this module, so
# that annotations in text could not be evaluated there.

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

from prefect import Flow, State, unmapped
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from tasks.azure.block import configured_azure
from tasks.errors import ConfigurationError, TopnError, UsageError
from tasks.model.chunks import Chunk, StagedChunk, waves
from tasks.model.corpus import Merges
from tasks.model.inputs import LocalFiles
from tasks.model.parameters import (
    DEFAULT_BLOCK,
    DEFAULT_NUM_WORDS,
    DEFAULT_OUTPUT_FOLDER,
    DEFAULT_TIMEOUT_MINUTES,
    BlockName,
    CostLimit,
    FilesPerTask,
    NodePrice,
    NotEmpty,
    Positive,
    TaskMinutes,
    TimeoutMinutes,
)
from tasks.model.pool import (
    DEFAULT_POOL,
    DEFAULT_SETUP,
    NodeCount,
    PoolId,
    PoolOptions,
    PoolSetup,
    SlotCount,
    SpotNodeCount,
    VmSize,
)
from tasks.model.run import KEEP_NOTHING, BatchJob, Containers, Keep, Run
from tasks.model.urls import URL
from tasks.model.verdict import Verdict
from tasks.report.artifacts import name_at_start, progress_artifact, start_report
from tasks.report.price import limited_minutes
from tasks.report.usage import UsageMeter, node_price, usage_meter
from tasks.steps.cleanup import clean_up
from tasks.steps.collect import collect_results
from tasks.steps.dead_results import sweep_before_run
from tasks.steps.life import heartbeat
from tasks.steps.merge import chunks_of_level, plan_merges
from tasks.steps.monitor import FutureSubmissions, wait_for_batch_tasks
from tasks.steps.plan import plan_files, split_failed_packs
from tasks.steps.pool_selection import check_pool_options, check_slots
from tasks.steps.provision import create_containers, create_job, create_pool
from tasks.steps.report import collect_verdicts, failed_state, final_state, report_failure, report_run
from tasks.steps.stage import stage_files
from tasks.steps.start import start_run
from tasks.steps.step import log, opaque
from tasks.steps.submit import submit_batch_tasks
from tasks.workload.base import Workload
from tasks.workload.word_counts import DEFAULT_ENCODING, DEFAULT_MAX_EXPANDED_MB, word_count_workload

# Enough concurrent requests to hide the latency to Azure. Without a limit, Prefect starts one thread per task run.
MAX_THREADS = 12

# How a Prefect server rejects long parameters, by default of more than 512 kB.
PARAMETER_SIZE_ERROR = r"parameters must be less than ([\d,]+) bytes when serialized \(got ([\d,]+) bytes"

P = ParamSpec("P")
R = TypeVar("R")


class WorkloadFlow(Flow[P, R]):
    """A flow whose body is `run_workload`."""

    def __init__(self, fn: Callable[P, R], **options: Any) -> None:
        """Create the flow from its body.

        If the body raises an error of topn, it returns a final state instead. The message of Prefect's own state would
        not begin with the reason.
        """
        super().__init__(fn, **options)

        @wraps(fn)
        def body(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                return fn(*args, **kwargs)
            except TopnError as error:
                log(str(error), logging.ERROR)
                return failed_state(error)

        self.fn = body

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow in this process.

        Raises:
            ConfigurationError: No Prefect server is configured, and no other flow has started one. Prefect would start
                one here, which stops before it has recorded the run, or does not start in time.
            UsageError: The server rejects the parameters of the run because of their size. Nothing was created.
        """
        if not PREFECT_API_URL.value() and FlowRunContext.get() is None:
            raise ConfigurationError(
                "No Prefect server is configured. Run the flow with `flows.api.run`, which starts what is missing, or set "
                "`PREFECT_API_URL`."
            )
        try:
            return super().__call__(*args, **kwargs)
        except PrefectHTTPStatusError as error:
            size = re.search(PARAMETER_SIZE_ERROR, error.response.text)
            if size is None:
                raise
            raise UsageError(
                f"The Prefect server accepts no more than {size[1]} bytes of parameters, and this run has {size[2]}. Use a "
                "pattern, in quotes on the command line: 'data/*.txt'."
            ) from None


def workload_flow(name: str) -> Callable[[Callable[P, R]], WorkloadFlow[P, R]]:
    """Return a decorator for a function whose body is `run_workload`. Hooks of the flow clean up however a run ends."""
    options: dict[str, Any] = {
        "flow_run_name": name_at_start,
        "task_runner": ThreadPoolTaskRunner(max_workers=MAX_THREADS),
        "on_completion": [clean_up],
        "on_failure": [clean_up, report_failure],
        "on_cancellation": [clean_up, report_failure],
        "on_crashed": [clean_up, report_failure],
    }
    return lambda function: WorkloadFlow(function, name=name, **options)


def run_workload(
    workload: Workload,
    inputs: Sequence[str],
    output_folder: str = "results",
    *,
    root: Sequence[str] = (),
    exclude: Sequence[str] = (),
    table: str | None = None,
    report_folder: str | None = None,
    files_per_task: int | None = None,
    pool_options: PoolOptions = DEFAULT_POOL,
    timeout_minutes: float = 60,
    keep: Keep = KEEP_NOTHING,
    refresh: bool = False,
    usd_per_node_hour: float | None = None,
    max_usd: float | None = None,
    task_minutes: float | None = None,
    corpus: bool = True,
) -> State[Any]:
    """Run a workload on each input file. This is the whole body of a flow, with the arguments of `topn`.

    The flow's hooks clean up. They keep what the run marked as kept.

    Raises:
        UsageError: An input is invalid.
        ConfigurationError: A setting is invalid.
        ServiceError: A request to a service failed, and retries did not help.
    """
    start_report(workload.name)
    if not corpus:
        workload = replace(workload, merge=None)
    check_pool_options(pool_options, configured_azure())
    if pool_options.pool_id is None:
        check_slots(workload, pool_options.slots)
    price = node_price(pool_options.vm_size, usd_per_node_hour)
    run = start_run(limited_minutes(timeout_minutes, max_usd, pool_options, price), keep)
    local = LocalFiles(
        inputs=inputs,
        roots=root,
        exclude=exclude,
        output_folder=output_folder,
        table=table,
        report_folder=report_folder,
        corpus_names=workload.corpus_names,
    )
    plan = plan_files(opaque(local), workload, refresh, files_per_task)
    plan = sweep_before_run(opaque(plan), workload, refresh, files_per_task)
    verdicts: dict[str, Verdict] = {}
    merges = Merges() if plan.chunks else plan_merges(opaque(plan), verdicts, workload, refresh)
    if not plan.chunks and not merges.levels:
        return final_state(report_run(run, opaque(plan), workload, {}, opaque(local), price, opaque(merges), {}))

    with progress_artifact(run.flow_run_id, workload.name, plan.new_file_count, merges.count), heartbeat(run):
        containers = create_containers(run, workload)
        batch_tasks = plan.batch_task_count or merges.count
        pool_id = create_pool(run, workload, containers, pool_options, batch_tasks)
        job = create_job(run, workload, containers, pool_id, pool_options.setup, task_minutes)
        meter = usage_meter(run, job)
        keep_remote = bool(URL.match(output_folder))
        if plan.chunks:
            verdicts = _process(plan.chunks, run, job, workload, containers, meter, keep_remote)
            if extra := split_failed_packs(plan, verdicts):
                verdicts |= _process(extra, run, job, workload, containers, meter, keep_remote)
            merges = plan_merges(opaque(plan), opaque(verdicts), workload, refresh)
        merged = _merge(merges, run, job, workload, containers, meter)
        usage = meter.usage()
    return final_state(
        report_run(
            run, opaque(plan), workload, opaque(verdicts), opaque(local), price, opaque(merges), opaque(merged), usage
        )
    )


def _process(
    chunks: Sequence[Chunk],
    run: Run,
    job: BatchJob,
    workload: Workload,
    containers: Containers,
    meter: UsageMeter,
    keep_remote: bool,
) -> dict[str, Verdict]:
    """Stage and submit the files of chunks, wait for their Batch tasks, and return the verdict on each file."""
    if not chunks:
        return {}
    staged: list[PrefectFuture[StagedChunk]] = []
    submitted: list[PrefectFuture[StagedChunk]] = []
    for wave in waves(chunks, MAX_THREADS):
        staging = stage_files.map(unmapped(run), opaque(wave), unmapped(workload), unmapped(containers))
        staged += staging
        submitted += submit_batch_tasks.map(
            unmapped(run), opaque(staging), unmapped(job), unmapped(workload), unmapped(containers)
        )
    collected = {}
    for finished in wait_for_batch_tasks(run, job, FutureSubmissions(submitted), workload, containers, meter):
        collected[finished.key] = collect_results.submit(opaque(finished), job, workload, containers, keep_remote)
    return collect_verdicts(chunks, staged, submitted, collected)


def _merge(
    merges: Merges, run: Run, job: BatchJob, workload: Workload, containers: Containers, meter: UsageMeter
) -> dict[str, Verdict]:
    """Merge the partials of all files, one level after the other, and return the verdict on each merge."""
    merged: dict[str, Verdict] = {}
    for level in range(len(merges.levels)):
        chunks, merge_workload = chunks_of_level(merges, level, merged, workload)
        merged |= _process(chunks, run, job, merge_workload, containers, meter, keep_remote=False)
    return merged


@workload_flow("topn")
def topn(
    inputs: Annotated[list[NotEmpty], Field(min_length=1)] = ["data/*.txt"],  # noqa: B006 - Prefect copies it
    num_words: Positive = DEFAULT_NUM_WORDS,
    output_folder: NotEmpty = DEFAULT_OUTPUT_FOLDER,
    ignore_case: bool = False,
    corpus: bool = True,
    table: NotEmpty | None = None,
    report_folder: NotEmpty | None = None,
    exclude: list[NotEmpty] = [],  # noqa: B006 - Prefect copies it
    root: list[NotEmpty] = [],  # noqa: B006 - Prefect copies it
    encoding: NotEmpty = DEFAULT_ENCODING,
    max_expanded_mb: Positive = DEFAULT_MAX_EXPANDED_MB,
    refresh: bool = False,
    nodes: NodeCount = DEFAULT_POOL.nodes,
    spot_nodes: SpotNodeCount = DEFAULT_POOL.spot_nodes,
    timeout_minutes: TimeoutMinutes = DEFAULT_TIMEOUT_MINUTES,
    max_usd: CostLimit | None = None,
    usd_per_node_hour: NodePrice | None = None,
    task_minutes: TaskMinutes | None = None,
    files_per_task: FilesPerTask | None = None,
    keep_containers: bool = False,
    keep_job: bool = False,
    keep_pool: bool = False,
    azure_block: BlockName = DEFAULT_BLOCK,  # noqa: ARG001 - `configured_azure` reads it from the flow run, as hooks do
    vm_size: VmSize = DEFAULT_POOL.vm_size,
    slots_per_node: SlotCount | None = None,
    pool_id: PoolId | None = None,
    pool: PoolSetup = DEFAULT_SETUP,
) -> State[Any]:
    """Count the most frequent words of each file on Azure Batch.

    Args:
        inputs: Text files, folders, or patterns such as data/*.txt or az://texts/**/*.txt. A deployed run reads files on
            the worker's machine. Nodes read blobs where they are.
        num_words: Number of words per file.
        output_folder: Output folder, or a place in Blob Storage such as az://results/nightly. A deployed run writes to
            folders on the worker's machine.
        ignore_case: Count "The" and "the" as one word.
        corpus: Also find the most frequent words of all files together, in corpus.txt and corpus.json.
        table: File for a table of all words, with the suffix .csv, .jsonl or .parquet.
        report_folder: Folder for report.html, a page about the run, or a place in Blob Storage.
        exclude: Patterns of names to leave out, such as drafts/**.
        root: Folders from which the names of the files start. By default the folder of each file, folder or pattern.
        encoding: Text encoding of all files, by its name in Python.
        max_expanded_mb: Limit of the decompressed size of each .gz, .bz2, .xz or .zst file.
        refresh: Also count files that have a stored result.
        nodes: Maximum number of dedicated nodes.
        spot_nodes: Maximum number of spot nodes. They are cheaper, but Azure can evict them at any time. Dedicated
            nodes then only cover what spot nodes cannot, and replace all of them after half of the timeout.
        timeout_minutes: Time limit of the run, counted from its start. Batch then terminates the job and removes the
            nodes of the run's pool.
        max_usd: Limit of the cost in USD. The run ends when all nodes together would have cost that much, spot nodes
            at the price of dedicated ones. Batch enforces it even if this machine fails. By default no limit.
        usd_per_node_hour: Price of a dedicated node in USD, for the cost estimate in the summary. By default the list
            price of the VM size, if known.
        task_minutes: Time limit of each Batch task. By default that of the run.
        files_per_task: Number of files per Batch task. By default one, or up to 100 small files once a run has more
            than 1,000 files.
        keep_containers: Do not delete the blob containers.
        keep_job: Do not delete the job.
        keep_pool: Do not delete the run's own pool. It has no nodes after the deadline.
        azure_block: Name of the Prefect block of the type "topn Azure" with the accounts.
        vm_size: VM size of the nodes, such as standard_d2as_v5.
        slots_per_node: Number of Batch tasks that run in parallel on a node, at most four per core. By default one
            per core if the name of the VM size contains the number of cores, otherwise one.
        pool_id: Id of an existing pool (letters, digits, - and _). The run neither changes nor deletes that pool. By
            default the run creates its own pool.
        pool: Setup of the nodes: network, image, containers, start commands, identity.

    Returns:
        The final state. A call of the flow returns its `RunReport`.

    Raises:
        FilesFailedError: Some files have no result. The results of the others were written.
    """
    return run_workload(
        word_count_workload(num_words, ignore_case, encoding, max_expanded_mb, corpus=corpus),
        inputs,
        output_folder,
        root=root,
        exclude=exclude,
        table=table,
        report_folder=report_folder,
        files_per_task=files_per_task,
        pool_options=PoolOptions(
            pool_id=pool_id,
            vm_size=vm_size,
            nodes=nodes,
            spot_nodes=spot_nodes,
            slots_per_node=slots_per_node,
            setup=pool,
        ),
        timeout_minutes=timeout_minutes,
        keep=Keep(containers=keep_containers, job=keep_job, pool=keep_pool),
        refresh=refresh,
        usd_per_node_hour=usd_per_node_hour,
        max_usd=max_usd,
        task_minutes=task_minutes,
        corpus=corpus,
    )
