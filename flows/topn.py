"""The flow: count the top N words of many files, each by its own Batch task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from prefect import State, flow, unmapped
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from tasks.model.chunks import MAX_FILES_PER_TASK, StagedChunk
from tasks.model.pool import (
    DEFAULT_POOL,
    DEFAULT_SETUP,
    NodeCount,
    PoolId,
    PoolOptions,
    PoolSetup,
    SlotCount,
    SpotNodeCount,
)
from tasks.model.run import KEEP_NOTHING, Keep
from tasks.report.artifacts import name_at_start, progress_artifact
from tasks.report.usage import node_price, usage_meter
from tasks.steps.cleanup import clean_up
from tasks.steps.collect import collect_results
from tasks.steps.monitor import FutureSubmissions, wait_for_batch_tasks
from tasks.steps.plan import plan_files
from tasks.steps.pool_selection import check_pool_options
from tasks.steps.provision import create_containers, create_job, create_pool
from tasks.steps.report import final_state, gather, report_run
from tasks.steps.stage import stage_files
from tasks.steps.start import start_run
from tasks.steps.step import opaque
from tasks.steps.submit import submit_batch_tasks
from tasks.steps.sweep import sweep_before_run
from tasks.workload.base import Workload
from tasks.workload.word_counts import word_count_workload

Positive = Field(ge=1)
NotEmpty = Field(min_length=1)

FilesPerTask = Field(ge=1, le=MAX_FILES_PER_TASK)

# A user delegation key, and so a signature of an existing pool's job, is good for 7 days at most.
MAX_MINUTES = 6 * 24 * 60

# Enough requests in flight to hide the distance to Azure; without a limit, each mapped task run is a thread.
THREADS = 12

# How a flow whose body is `run_workload` is declared: `@flow(name=…, **FLOW)`.
FLOW: dict[str, Any] = {
    "flow_run_name": name_at_start,
    "task_runner": ThreadPoolTaskRunner(max_workers=THREADS),
    "on_completion": [clean_up],
    "on_failure": [clean_up],
    "on_cancellation": [clean_up],
    "on_crashed": [clean_up],
}


def run_workload(
    workload: Workload,
    inputs: Sequence[str],
    output_folder: str = "results",
    *,
    files_per_task: int | None = None,
    pool_options: PoolOptions = DEFAULT_POOL,
    timeout_minutes: float = 60,
    keep: Keep = KEEP_NOTHING,
    refresh: bool = False,
    usd_per_node_hour: float | None = None,
) -> State[Any]:
    """Do a workload's work on each file: the whole body of a flow; its arguments are those of `topn`.

    Cleaning up is the flow's hook. It looks for what to keep in the parameters of the flow run: keep_containers,
    keep_job and keep_pool.

    Raises:
        UsageError: An input cannot be used.
        ConfigurationError: A setting cannot be used.
        ServiceError: A service failed for good.
    """
    check_pool_options(pool_options)
    sweep_before_run()
    run = start_run(timeout_minutes, keep)
    plan = plan_files(inputs, workload, refresh, files_per_task)
    price = node_price(pool_options.vm_size, usd_per_node_hour)
    if not plan.chunks:
        return final_state(report_run(run, opaque(plan), workload, {}, output_folder, price))

    with progress_artifact(run.flow_run_id, workload.name, plan.new_file_count):
        containers = create_containers(run, workload)
        pool_id = create_pool(run, workload, containers, pool_options, plan.batch_task_count)
        job = create_job(run, workload, containers, pool_id, pool_options.setup)
        staged: list[PrefectFuture[StagedChunk]] = []
        submitted: list[PrefectFuture[StagedChunk]] = []
        for wave in plan.waves(THREADS):
            staging = stage_files.map(unmapped(run), opaque(wave), unmapped(workload), unmapped(containers))
            staged += staging
            submitted += submit_batch_tasks.map(
                unmapped(run), opaque(staging), unmapped(job), unmapped(workload), unmapped(containers)
            )
        meter = usage_meter(run, job)
        collected = {}
        for finished in wait_for_batch_tasks(run, job, FutureSubmissions(submitted), workload, containers):
            collected[finished.key] = collect_results.submit(opaque(finished), job, workload, containers)
            meter.add(finished)
        usage = meter.usage()
        verdicts = gather(plan, staged, submitted, collected)
    return final_state(report_run(run, opaque(plan), workload, opaque(verdicts), output_folder, price, usage))


@flow(name="topn", **FLOW)
def topn(
    inputs: Annotated[list[Annotated[str, NotEmpty]], NotEmpty] = ["data/*.txt"],  # noqa: B006 - Prefect copies it
    num_words: Annotated[int, Positive] = 3,
    ignore_case: bool = False,
    output_folder: Annotated[str, NotEmpty] = "results",
    files_per_task: Annotated[int, FilesPerTask] | None = None,
    nodes: NodeCount = DEFAULT_POOL.nodes,
    spot_nodes: SpotNodeCount = DEFAULT_POOL.spot_nodes,
    slots_per_node: SlotCount | None = None,
    vm_size: Annotated[str, NotEmpty] = DEFAULT_POOL.vm_size,
    pool_id: PoolId | None = None,
    pool: PoolSetup = DEFAULT_SETUP,
    timeout_minutes: Annotated[float, Field(ge=1, le=MAX_MINUTES)] = 60,
    keep_containers: bool = False,
    keep_job: bool = False,
    keep_pool: bool = False,
    refresh: bool = False,
    usd_per_node_hour: Annotated[float, Field(ge=0)] | None = None,
) -> State[Any]:
    """Count the top N words of each file on Azure Batch.

    Args:
        inputs: Names of text files, or patterns such as data/*.txt; in a deployed run, on the worker's machine.
        num_words: How many words to give of each file.
        ignore_case: Take "The" and "the" for one word.
        output_folder: Where the outputs go; in a deployed run, on the worker's machine.
        files_per_task: How many files share a Batch task. Without it: one, and up to 100 small ones where there are more than
            1,000 files.
        nodes: The most dedicated nodes the pool may have, at the same time.
        spot_nodes: The most spot nodes: cheaper, and taken away at any time. With them, dedicated nodes only stand in
            for what the spot nodes cannot do, and do the rest after half of the time.
        slots_per_node: Batch tasks that run side by side on a node; at most four times its cores. Without it, one for each
            core, where the name of the VM size tells how many it has, and else one.
        vm_size: VM size of the nodes, such as standard_d2s_v3.
        pool_id: Id (letters, digits, - and _) of an existing pool to use; it is neither changed nor deleted. Without one,
            the run makes its own.
        pool: How the nodes of the pool are set up: network, image, containers, start commands, identity.
        timeout_minutes: When the run gives up, counted from its start; pool and job end then, whatever happens.
        keep_containers: Leave the blob containers in place.
        keep_job: Leave the job in place.
        keep_pool: Leave the run's own pool in place; it has no nodes after the deadline.
        refresh: Count files whose result is known, too.
        usd_per_node_hour: What a dedicated node costs, for the estimate in the summary. Without it, the list price of
            the VM size, where that is known.

    Returns:
        The final state. Calling the flow gives its RunReport.

    Raises:
        FilesFailedError: Some files have no result; the others have theirs.
    """
    return run_workload(
        word_count_workload(num_words, ignore_case),
        inputs,
        output_folder,
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
    )
