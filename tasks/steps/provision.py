"""Provision: create the containers, the pool and the job of a run, or adopt those that an earlier attempt made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from tasks.azure import sas_expiry as signatures
from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.autoscale import pool_formula
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.values import Blob, JobSpec, Pool, PoolSpec, StartTask
from tasks.clock import SYSTEM_CLOCK, Clock
from tasks.errors import (
    AlreadyExistsError,
    ConfigurationError,
    ForeignResourceError,
    NotFoundError,
    ServiceError,
)
from tasks.model.pool import DEFAULT_SETUP, PoolOptions, PoolSetup
from tasks.model.run import BatchJob, Containers, Run
from tasks.progress import notify
from tasks.steps.pool_selection import choose_identity, choose_image, support_warning
from tasks.steps.step import step
from tasks.workload.base import Workload

# Jobs of others end within minutes, or not at all.
MAX_QUOTA_WAIT = timedelta(minutes=10)
QUOTA_POLL_SECONDS = 15.0


@step("create containers")
def create_containers(run: Run, workload: Workload) -> Containers:
    """Create the run's three containers, and put what is shipped to the nodes into the first."""
    return ensure_containers(blob_account(), run, workload)


@step("create pool")
def create_pool(run: Run, workload: Workload, containers: Containers, options: PoolOptions, batch_tasks: int) -> str:
    """Create the run's pool, or check the existing one that the user named; returns its id."""
    if options.pool_id is not None:
        return existing_pool(batch_account(), options.pool_id).pool_id
    return ensure_pool(batch_account(), blob_account(), run, workload, containers, options, batch_tasks)


@step("create job")
def create_job(run: Run, workload: Workload, containers: Containers, pool_id: str, setup: PoolSetup) -> BatchJob:
    """Create the run's job, which ends at the run's deadline."""
    account = batch_account()
    identity = None if pool_id == run.name else choose_identity(pool_id, account.pool(pool_id).identities, setup)
    return ensure_job(account, blob_account(), run, workload, containers, pool_id, setup=setup, node_identity=identity)


def ensure_containers(account: BlobAccount, run: Run, workload: Workload) -> Containers:
    """Create or adopt the containers.

    Raises:
        ForeignResourceError: One exists and is not this run's.
    """
    containers = Containers(application=f"{run.name}-app", inputs=f"{run.name}-in", outputs=f"{run.name}-out")
    for name in (containers.application, containers.inputs, containers.outputs):
        try:
            account.create_container(name, run.metadata(kept=run.keep.containers))
        except AlreadyExistsError:
            _require_own(run, f"container {name}", account.container_metadata(name))
    for name, content in workload.files.items():
        account.upload_bytes(containers.application, name, content)
    return containers


def existing_pool(account: BatchAccount, pool_id: str) -> Pool:
    """Look at a pool that the user named, which must be such as can be used.

    Raises:
        ConfigurationError: There is no such pool, or it is being deleted.
    """
    try:
        pool = account.pool(pool_id)
    except NotFoundError:
        raise ConfigurationError(f"There is no pool {pool_id}: create it, or leave pool_id out.") from None
    if pool.state != "active":
        raise ConfigurationError(f"Pool {pool_id} is {pool.state}: name another, or leave pool_id out.")
    return pool


def ensure_pool(
    account: BatchAccount,
    blobs: BlobAccount,
    run: Run,
    workload: Workload,
    containers: Containers,
    options: PoolOptions,
    batch_tasks: int,
) -> str:
    """Create or adopt the run's own pool, whose start task puts the workload's files on each node.

    Raises:
        ForeignResourceError: A pool of the run's name exists and is not this run's.
        ConfigurationError: No image can be used.
    """
    now = datetime.now(timezone.utc)
    image = choose_image(account, options.setup, run.deadline_at)
    if warning := support_warning(image, now):
        _warn(warning)
    files_start_task = start_task(blobs, run, workload, containers, now, options.setup)
    spec = PoolSpec(
        pool_id=run.name,
        options=options,
        image=image,
        autoscale_formula=pool_formula(
            most_nodes=options.nodes,
            most_spot_nodes=options.spot_nodes,
            slots_per_node=options.slots,
            expected_batch_tasks=batch_tasks,
            created_at=now,
            deadline_at=run.deadline_at,
        ),
        start_task=files_start_task,
        metadata=run.metadata(kept=run.keep.pool),
    )
    try:
        account.create_pool(spec)
    except AlreadyExistsError:
        _require_own(run, f"pool {run.name}", account.pool(run.name).metadata)
        account.update_start_task(run.name, files_start_task)
    return run.name


def start_task(
    blobs: BlobAccount, run: Run, workload: Workload, containers: Containers, now: datetime, setup: PoolSetup
) -> StartTask:
    """Describe what puts the workload's files on each node of the run's own pool, with signatures that are made now."""
    # Moved into place when all are there and the node can do the work.
    steps = [_check(workload, setup)]
    for name in workload.files:
        steps.append(f'mv -f {shlex.quote(name)} "$AZ_BATCH_NODE_SHARED_DIR/"')
        if setup.start_as_admin:
            steps.append(f'chmod a+rX "$AZ_BATCH_NODE_SHARED_DIR/"{shlex.quote(name)}')
    steps += [f"{{ {command}\n}}" for command in setup.start_commands]
    return StartTask(
        command_line=_shell(" && ".join(steps)),
        files=_file_blobs(blobs, workload, containers, signatures.expiry(run, now)),
        as_admin=setup.start_as_admin,
    )


def ensure_job(
    account: BatchAccount,
    blobs: BlobAccount,
    run: Run,
    workload: Workload,
    containers: Containers,
    pool_id: str,
    clock: Clock = SYSTEM_CLOCK,
    setup: PoolSetup = DEFAULT_SETUP,
    node_identity: str | None = None,
) -> BatchJob:
    """Create or adopt the run's job.

    On a pool that outlives the run, the job's preparation task brings the workload's files to each node: a start task's
    signatures would expire, and nodes that join later would fail.

    Raises:
        ForeignResourceError: A job of the run's name exists and is not this run's.
    """
    own_pool = pool_id == run.name
    seconds_left = (run.deadline_at - datetime.now(timezone.utc)).total_seconds()
    spec = JobSpec(
        job_id=run.name,
        pool_id=pool_id,
        wall_clock_seconds=max(1.0, seconds_left),
        metadata=run.metadata(kept=run.keep.job),
        preparation_command_line=None if own_pool else _shell(_check(workload, setup)),
        preparation_files=(
            # It cannot be renewed: a job's preparation task is the same for ever.
            () if own_pool else _file_blobs(blobs, workload, containers, signatures.last_needed_at(run), node_identity)
        ),
    )
    try:
        _create_job_when_quota_allows(account, spec, run.deadline_at, clock)
    except AlreadyExistsError:
        _require_own(run, f"job {run.name}", account.job(run.name).metadata)
    return BatchJob(
        job_id=run.name,
        pool_id=pool_id,
        files_variable="AZ_BATCH_NODE_SHARED_DIR" if own_pool else "AZ_BATCH_JOB_PREP_WORKING_DIR",
        setup=setup,
        node_identity=node_identity,
    )


def _create_job_when_quota_allows(account: BatchAccount, spec: JobSpec, deadline_at: datetime, clock: Clock) -> None:
    """Create a job; where the account's quota of active jobs is used up, wait a bounded time for another's end.

    Raises:
        ServiceError: The quota stayed used up, or the service refused for another reason.
    """
    give_up_at = min(clock.now() + MAX_QUOTA_WAIT, deadline_at)
    while True:
        try:
            return account.create_job(spec)
        except ServiceError as error:
            if error.code != "ActiveJobAndScheduleQuotaReached" or clock.now() >= give_up_at:
                raise
        notify("The account's quota of active jobs is used up: waiting for another job's end.")
        clock.sleep(QUOTA_POLL_SECONDS)


def _warn(sentence: str) -> None:
    notify(sentence)
    with suppress(MissingContextError):
        get_run_logger().warning(sentence)


def _check(workload: Workload, setup: PoolSetup) -> str:
    # What a container has is not seen from the node.
    return "true" if setup.container_image else f"FILES=.; {workload.check_command}"


def _file_blobs(
    blobs: BlobAccount, workload: Workload, containers: Containers, expires_at: datetime, identity: str | None = None
) -> tuple[Blob, ...]:
    signed_until = None if identity else expires_at
    return tuple(
        Blob(url=blobs.read_url(containers.application, name, signed_until), file_path=name, identity=identity)
        for name in workload.files
    )


def _shell(script: str) -> str:
    """Wrap a script of ours for a node, which runs no command line through a shell by itself."""
    return f"/bin/sh -c {shlex.quote(script)}"


def _require_own(run: Run, what: str, metadata: Mapping[str, str]) -> None:
    if not run.owns(metadata):
        raise ForeignResourceError(f"A {what} exists that is not of this run: delete or rename it, then run again.")
