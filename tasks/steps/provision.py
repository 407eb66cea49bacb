"""Create the containers, the pool and the job of a run, or adopt those of an earlier attempt."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from tasks.azure import sas_expiry as signatures
from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.autoscale import pool_formula
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.values import Blob, JobSpec, Pool, PoolSpec, StartTask
from tasks.clock import SYSTEM_CLOCK, Clock, service_time
from tasks.errors import (
    AlreadyExistsError,
    ConfigurationError,
    ForeignResourceError,
    NotFoundError,
    ServiceError,
)
from tasks.model.naming import APPLICATION_SUFFIX, INPUTS_SUFFIX, OUTPUTS_SUFFIX, PARTIALS_CONTAINER, PARTIALS_METADATA
from tasks.model.pool import DEFAULT_SETUP, PoolOptions, PoolSetup
from tasks.model.run import BatchJob, Containers, Run
from tasks.steps.pool_selection import check_slots, choose_identity, choose_image, support_warning
from tasks.steps.step import log, step, warn
from tasks.text import quantity
from tasks.workload.base import Workload

# Another active job usually ends within minutes, or not at all.
MAX_QUOTA_WAIT = timedelta(minutes=10)
QUOTA_POLL_SECONDS = 15.0


@step("create containers")
def create_containers(run: Run, workload: Workload) -> Containers:
    """Create the run's three containers, and upload the workload's files to the first one."""
    containers = ensure_containers(blob_account(), run, workload)
    log(f"The containers are {run.name}{APPLICATION_SUFFIX}, {INPUTS_SUFFIX} and {OUTPUTS_SUFFIX}.")
    return containers


@step("create pool")
def create_pool(run: Run, workload: Workload, containers: Containers, options: PoolOptions, batch_tasks: int) -> str:
    """Create the run's pool, or check the existing pool that the user configured; returns the pool id."""
    if options.pool_id is not None:
        pool = get_existing_pool(batch_account(), options.pool_id)
        check_slots(workload, pool.slots_per_node)
        log(f"The existing pool {pool.pool_id} is used.")
        return pool.pool_id
    pool_id = ensure_pool(batch_account(), blob_account(), run, workload, containers, options, batch_tasks)
    spot = f" and {quantity(options.spot_nodes, 'spot node')}" if options.spot_nodes else ""
    log(f"The pool is {pool_id}, with up to {quantity(options.nodes, 'node')}{spot} of {options.vm_size}.")
    return pool_id


@step("create job")
def create_job(
    run: Run,
    workload: Workload,
    containers: Containers,
    pool_id: str,
    setup: PoolSetup,
    task_minutes: float | None,
) -> BatchJob:
    """Create the run's job, which Batch terminates at the run's deadline."""
    account = batch_account()
    identity = None if pool_id == run.name else choose_identity(pool_id, account.get_pool(pool_id).identities, setup)
    job = ensure_job(account, blob_account(), run, workload, containers, pool_id, setup=setup, node_identity=identity)
    log(f"The job is {job.job_id}. It ends at {run.deadline_at:%Y-%m-%d %H:%M} UTC at the latest.")
    return replace(job, task_minutes=task_minutes or workload.task_minutes)


def ensure_containers(account: BlobAccount, run: Run, workload: Workload) -> Containers:
    """Create or adopt the run's containers, and upload the workload's files.

    Raises:
        ForeignResourceError: A container with the same name exists and does not belong to this run.
    """
    containers = run.containers
    for name in containers.names:
        try:
            account.create_container(name, run.metadata(kept=run.keep.containers))
        except AlreadyExistsError:
            _require_own(run, f"Container `{name}`", account.get_container_metadata(name))
    if workload.merge is not None:
        ensure_partials_container(account)
    for name, content in workload.files.items():
        account.upload_bytes(containers.application, name, content)
    return containers


def ensure_partials_container(account: BlobAccount) -> None:
    """Create the container of the partials if it does not exist. All runs share it, and none deletes it.

    Raises:
        ConfigurationError: A container with the same name exists and is not one of topn.
    """
    try:
        account.create_container(PARTIALS_CONTAINER, PARTIALS_METADATA)
    except AlreadyExistsError:
        if account.get_container_metadata(PARTIALS_CONTAINER) != PARTIALS_METADATA:
            raise ConfigurationError(
                f"The container `{PARTIALS_CONTAINER}` belongs to somebody else. Use another storage account, or run with "
                "`--no-corpus`."
            ) from None


def get_existing_pool(account: BatchAccount, pool_id: str) -> Pool:
    """Return the existing pool that the user configured.

    Raises:
        ConfigurationError: The pool does not exist, or is being deleted.
    """
    try:
        pool = account.get_pool(pool_id)
    except NotFoundError:
        raise ConfigurationError(f"Pool `{pool_id}` does not exist. Create it, or leave out `pool_id`.") from None
    if pool.state != "active":
        raise ConfigurationError(f"Pool `{pool_id}` is {pool.state}. Use another pool, or leave out `pool_id`.")
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
    """Create or adopt the run's own pool, whose start task copies the workload's files to each node.

    Raises:
        ForeignResourceError: A pool with the same name exists and does not belong to this run.
        ConfigurationError: No suitable image exists.
    """
    now = service_time()
    image = choose_image(account, options, run.deadline_at)
    if warning := support_warning(image, now):
        warn(warning)
    pool_start_task = start_task(blobs, run, workload, containers, now, options.setup)
    spec = PoolSpec(
        pool_id=run.name,
        options=options,
        image=image,
        autoscale_formula=pool_formula(
            max_nodes=options.nodes,
            max_spot_nodes=options.spot_nodes,
            # The formula counts Batch tasks.
            slots_per_node=options.slots // workload.required_slots,
            expected_batch_tasks=batch_tasks,
            created_at=now,
            deadline_at=run.deadline_at,
        ),
        start_task=pool_start_task,
        metadata=run.metadata(kept=run.keep.pool),
    )
    try:
        account.create_pool(spec)
    except AlreadyExistsError:
        _require_own(run, f"Pool `{run.name}`", account.get_pool(run.name).metadata)
        account.update_start_task(run.name, pool_start_task)
    return run.name


def start_task(
    blobs: BlobAccount, run: Run, workload: Workload, containers: Containers, now: datetime, setup: PoolSetup
) -> StartTask:
    """Return the start task that copies the workload's files to each node, with new signatures."""
    # The files are moved into the shared folder only after all are downloaded and the check command has succeeded.
    commands = [_check_command(workload, setup)]
    for name in workload.files:
        commands.append(f'mv -f {shlex.quote(name)} "$AZ_BATCH_NODE_SHARED_DIR/"')
        if setup.start_as_admin:
            commands.append(f'chmod a+rX "$AZ_BATCH_NODE_SHARED_DIR/"{shlex.quote(name)}')
    commands += [f"{{ {command}\n}}" for command in setup.start_commands]
    return StartTask(
        command_line=_shell(" && ".join(commands)),
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

    On an existing pool, the job preparation task copies the workload's files to each node. A start task would not work:
    its signatures expire, and nodes that join later would fail.

    Raises:
        ForeignResourceError: A job with the same name exists and does not belong to this run.
    """
    own_pool = pool_id == run.name
    remaining_seconds = (run.deadline_at - service_time()).total_seconds()
    spec = JobSpec(
        job_id=run.name,
        pool_id=pool_id,
        wall_clock_seconds=max(1.0, remaining_seconds),
        metadata=run.metadata(kept=run.keep.job),
        preparation_command_line=None if own_pool else _shell(_check_command(workload, setup)),
        preparation_files=(
            # A job preparation task cannot be updated, so its signatures must last until the end of the run.
            () if own_pool else _file_blobs(blobs, workload, containers, signatures.last_use_at(run), node_identity)
        ),
    )
    try:
        _create_job_when_quota_allows(account, spec, run.deadline_at, clock)
    except AlreadyExistsError:
        _require_own(run, f"Job `{run.name}`", account.get_job(run.name).metadata)
    return BatchJob(
        job_id=run.name,
        pool_id=pool_id,
        files_variable="AZ_BATCH_NODE_SHARED_DIR" if own_pool else "AZ_BATCH_JOB_PREP_WORKING_DIR",
        setup=setup,
        node_identity=node_identity,
    )


def _create_job_when_quota_allows(account: BatchAccount, spec: JobSpec, deadline_at: datetime, clock: Clock) -> None:
    """Create a job; if the account's quota of active jobs is used up, wait up to 10 minutes for another job to end.

    Raises:
        ServiceError: The quota was still used up after the wait, or Batch rejected the job for another reason.
    """
    give_up_at = min(clock.now() + MAX_QUOTA_WAIT, deadline_at)
    while True:
        try:
            return account.create_job(spec)
        except ServiceError as error:
            if error.code != "ActiveJobAndScheduleQuotaReached" or clock.now() >= give_up_at:
                raise
        warn("The account's quota of active jobs is used up. Waiting for another job to end.")
        clock.sleep(QUOTA_POLL_SECONDS)


def _check_command(workload: Workload, setup: PoolSetup) -> str:
    # A start task runs outside the container, so it cannot check what the container has.
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
    """Return a command line that runs a script, because Batch does not run command lines in a shell."""
    return f"/bin/sh -c {shlex.quote(script)}"


def _require_own(run: Run, resource: str, metadata: Mapping[str, str]) -> None:
    if not run.owns(metadata):
        raise ForeignResourceError(f"{resource} does not belong to this run. Delete or rename it, then run again.")
