"""The Azure Batch account. No other module of `tasks` imports `azure.batch`.

Each method is one operation that the steps need. It accepts and returns the classes of `tasks.azure.values`, and only
retries requests.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar
from uuid import uuid4

from azure.batch import BatchClient, models
from azure.batch.models import _models
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
from azure.core.pipeline.policies import SansIOHTTPPolicy

from tasks.azure.client import (
    TransientRetryPolicy,
    client_options,
    default_identity,
    sign_with_service_time,
    translated_errors,
)
from tasks.azure.error_values import read_error_values
from tasks.azure.pool_request import pool_properties
from tasks.azure.settings import AzureSettings, account_of
from tasks.azure.transport import is_batch_answer
from tasks.azure.values import (
    AddedTasks,
    BatchTaskSpec,
    Blob,
    Image,
    Job,
    JobSpec,
    Node,
    NodeAllocation,
    Pool,
    PoolSpec,
    Problem,
    StartTask,
    TaskCounts,
)
from tasks.errors import NotFoundError, ServiceError
from tasks.model.naming import CLEANUP_MARK
from tasks.model.verdict import BatchTaskOutcome
from tasks.redaction import redact

# Source: Batch REST API 2025-06-01, Task - Create Task Collection.
MAX_TASKS_PER_REQUEST = 100

# How long to wait for a terminated job; it ends as soon as its Batch tasks are killed.
MAX_TERMINATION_SECONDS = 10.0

# The Batch task has not completed, or it has succeeded. Source: Batch REST API 2025-06-01, Task - Reactivate.
NOT_REACTIVATED_CODES = frozenset({"TaskNotCompleted", "TaskSucceeded"})

# A Batch task with this id is in the job. Source: Batch REST API 2025-06-01, Task - Add Collection.
TASK_EXISTS = "TaskExists"

# The maximum of `maxresults`. Source: Batch REST API 2025-06-01.
MAX_PAGE_SIZE = 1000

_T = TypeVar("_T")

# A model class collects its field names when it is first instantiated. This is not thread-safe, and the SDK hides the
# error in responses by returning raw values. So every model is instantiated here once.
# Source: https://github.com/Azure/azure-sdk-for-python/issues/47426
for _model in list(vars(_models).values()):
    if isinstance(_model, type) and issubclass(_model, MutableMapping):
        _model.__new__(_model)


class BatchAccount:
    """A thread-safe client of one Batch account."""

    def __init__(self, settings: AzureSettings) -> None:
        endpoint = settings.batch_endpoint or ""
        account = settings.batch_account or account_of(endpoint) or ""
        if settings.batch_key is None:
            credential: Any = default_identity()
        else:
            credential = AzureNamedKeyCredential(account, settings.batch_key.get_secret_value())
        self._client = BatchClient(
            endpoint=endpoint,
            credential=credential,
            per_retry_policies=[_DatePolicy()],
            **client_options("Batch", TransientRetryPolicy(), is_batch_answer),
        )

    def list_images(self, **request_options: Any) -> list[Image]:
        """List the virtual machine images that Batch supports."""
        with translated_errors("Batch", "list the supported images"):
            return [_image(image) for image in self._client.list_supported_images(**request_options)]

    def check_write_access(self) -> None:
        """Check write access by deleting a job and a pool that do not exist.

        Raises:
            ServiceError: Write access is denied, or Batch did not respond.
        """
        unused_id = f"topn-check-{uuid4().hex}"
        for kind, delete in (("job", self._client.begin_delete_job), ("pool", self._client.begin_delete_pool)):
            with suppress(NotFoundError), translated_errors("Batch", f"delete a {kind}"):
                delete(unused_id, polling_interval=1)

    def create_pool(self, spec: PoolSpec) -> None:
        """Create a pool with autoscaling enabled.

        Raises:
            AlreadyExistsError: A pool with this id exists.
            ConfigurationError: `extra` sets a property that topn sets.
        """
        pool = models.BatchPoolCreateOptions(pool_properties(spec))
        pool.start_task = _start_task(spec.start_task)
        with translated_errors("Batch", f"create pool {spec.pool_id}"):
            self._client.create_pool(pool)

    def update_start_task(self, pool_id: str, start_task: StartTask) -> None:
        """Update the start task of a pool, for nodes that join or reboot from now on."""
        with translated_errors("Batch", f"update pool {pool_id}"):
            self._client.update_pool(pool_id, models.BatchPoolUpdateOptions(start_task=_start_task(start_task)))

    def restart_autoscale(self, pool_id: str) -> None:
        """Enable the autoscaling of a pool again, with the same formula."""
        with translated_errors("Batch", f"restart the autoscaling of pool {pool_id}"):
            pool = self._client.get_pool(pool_id)
            self._client.enable_pool_auto_scale(
                pool_id,
                models.BatchPoolEnableAutoScaleOptions(
                    auto_scale_formula=pool.auto_scale_formula,
                    auto_scale_evaluation_interval=pool.auto_scale_evaluation_interval,
                ),
            )

    def get_pool(self, pool_id: str) -> Pool:
        """Get a pool.

        Raises:
            NotFoundError: The pool does not exist.
        """
        with translated_errors("Batch", f"get pool {pool_id}"):
            return _pool(self._client.get_pool(pool_id))

    def list_nodes(self, pool_id: str) -> list[Node]:
        """List the nodes of a pool."""
        with translated_errors("Batch", f"list the nodes of pool {pool_id}"):
            return [
                Node(
                    node_id=node.id,
                    state=_text(node.state),
                    problems=tuple(_problem(error) for error in node.errors or ()),
                    start_task_exit_code=node.start_task_info.exit_code if node.start_task_info else None,
                )
                for node in self._client.list_nodes(pool_id, select=["id", "state", "errors", "startTaskInfo"])
            ]

    def reboot_node(self, pool_id: str, node_id: str) -> None:
        """Reboot a node, which runs its start task again, and requeue its Batch tasks."""
        # The SDK does not send the request without options.
        options: Any = {"nodeRebootOption": "requeue"}
        with translated_errors("Batch", f"reboot node {node_id}"):
            self._client.begin_reboot_node(pool_id, node_id, options=options)

    def read_node_file_tail(self, pool_id: str, node_id: str, path: str, length: int = 2000) -> str:
        """Read the last `length` bytes of a text file on a node.

        Raises:
            NotFoundError: The file or the node no longer exists.
        """
        with translated_errors("Batch", f"read {path} of node {node_id}"):
            content = b""
            for block in self._client.download_node_file(pool_id, node_id, path):
                content = (content + block)[-length:]
        return content.decode("utf-8", "replace")

    def create_job(self, spec: JobSpec) -> None:
        """Create a job that Batch terminates after `wall_clock_seconds`.

        Raises:
            AlreadyExistsError: A job with this id exists.
        """
        preparation = None
        if spec.preparation_command_line is not None:
            preparation = models.BatchJobPreparationTask(
                command_line=spec.preparation_command_line, resource_files=_resource_files(spec.preparation_files)
            )
        job = models.BatchJobCreateOptions(
            id=spec.job_id,
            display_name=spec.job_id,
            pool_info=models.BatchPoolInfo(pool_id=spec.pool_id),
            constraints=models.BatchJobConstraints(max_wall_clock_time=timedelta(seconds=spec.wall_clock_seconds)),
            job_preparation_task=preparation,
            metadata=_metadata(spec.metadata),
        )
        with translated_errors("Batch", f"create job {spec.job_id}"):
            self._client.create_job(job)

    def get_job(self, job_id: str) -> Job:
        """Get a job.

        Raises:
            NotFoundError: The job does not exist.
        """
        with translated_errors("Batch", f"get job {job_id}"):
            return _job(self._client.get_job(job_id))

    def add_tasks(self, job_id: str, specs: Sequence[BatchTaskSpec]) -> AddedTasks:
        """Add Batch tasks to a job, in requests of at most 100 that are split if the body is too large.

        A Batch task whose id exists does not change. Retries are safe because each id identifies its content.

        Returns:
            The Batch tasks that Batch rejected, and those that existed. All except the rejected ones are in the job.

        Raises:
            ServiceError: A whole request failed. Batch tasks of earlier requests stay in the job.
        """
        # The SDK's own `create_tasks` counts rejected Batch tasks as added, and retries server errors forever.
        added = AddedTasks()
        pending = [list(specs[i : i + MAX_TASKS_PER_REQUEST]) for i in range(0, len(specs), MAX_TASKS_PER_REQUEST)]
        while pending:
            group = pending.pop(0)
            try:
                self._add_collection(job_id, group, added)
            except ServiceError as error:
                if error.code != "RequestBodyTooLarge":
                    raise
                if len(group) == 1:
                    added.rejected[group[0].task_id] = str(error)
                    continue
                middle = len(group) // 2
                pending[:0] = [group[:middle], group[middle:]]
        return added

    def _add_collection(self, job_id: str, specs: Sequence[BatchTaskSpec], added: AddedTasks) -> None:
        group = models.BatchTaskGroup(task_values=[_task(spec) for spec in specs])
        operation = f"add {len(specs)} Batch tasks to job {job_id}"
        with translated_errors("Batch", operation):
            response = self._client.create_task_collection(job_id, group)
            results = {result.task_id: result for result in response.result_values or ()}
            for spec in specs:
                result = results[spec.task_id]
                if _error_code(result) == TASK_EXISTS:
                    added.existing.add(spec.task_id)
                elif (reason := _rejection(result, operation)) is not None:
                    added.rejected[spec.task_id] = reason

    def get_task_counts(self, job_id: str) -> TaskCounts:
        """Return the number of Batch tasks of a job in each state, with a single request."""
        with translated_errors("Batch", f"count the Batch tasks of job {job_id}"):
            counts = self._client.get_job_task_counts(job_id).task_counts
            return TaskCounts(active=counts.active, running=counts.running, completed=counts.completed)

    def list_completed_tasks(self, job_id: str, since: datetime | None) -> Iterator[tuple[datetime, BatchTaskOutcome]]:
        """Yield the completion time and outcome of each Batch task that completed at or after `since`."""
        condition = "state eq 'completed'"
        if since is not None:
            condition += f" and stateTransitionTime ge DateTime'{_instant(since)}'"
        with translated_errors("Batch", f"list the completed Batch tasks of job {job_id}"):
            for task in self._client.list_tasks(
                job_id,
                filter=condition,
                select=["id", "state", "stateTransitionTime", "executionInfo", "nodeInfo"],
                max_results=MAX_PAGE_SIZE,
            ):
                yield _typed(task.state_transition_time, datetime), _outcome(task)

    def list_waiting_tasks(self, job_id: str) -> dict[str, str]:
        """Return the ETags of the Batch tasks that wait for a node, by task id."""
        with translated_errors("Batch", f"list the waiting Batch tasks of job {job_id}"):
            found = self._client.list_tasks(
                job_id, filter="state eq 'active'", select=["id", "eTag"], max_results=MAX_PAGE_SIZE
            )
            return {_typed(task.id, str): _typed(task.etag, str) for task in found}

    def delete_task(self, job_id: str, task_id: str, version: str) -> bool:
        """Delete a Batch task unless its ETag differs from `version`; return whether it was deleted."""
        with translated_errors("Batch", f"delete Batch task {task_id}"):
            try:
                self._client.delete_task(job_id, task_id, etag=version, match_condition=MatchConditions.IfNotModified)
            except (ResourceModifiedError, ResourceNotFoundError):
                return False
        return True

    def reactivate_task(self, job_id: str, task_id: str) -> bool:
        """Run a failed Batch task again; return False if it has succeeded."""
        try:
            with translated_errors("Batch", f"reactivate Batch task {task_id}"):
                self._client.reactivate_task(job_id, task_id)
        except ServiceError as error:
            if error.code not in NOT_REACTIVATED_CODES:
                raise
            # "Not completed" means that an earlier request succeeded and its response was lost.
            return error.code == "TaskNotCompleted"
        return True

    def list_jobs(self, prefix: str) -> list[Job]:
        """List the jobs whose ids start with `prefix`."""
        with translated_errors("Batch", f"list jobs {prefix}…"):
            return [_job(job) for job in self._client.list_jobs(filter=f"startswith(id,'{prefix}')")]

    def list_pools(self, prefix: str) -> list[Pool]:
        """List the pools whose ids start with `prefix`, with only id, state and metadata."""
        with translated_errors("Batch", f"list pools {prefix}…"):
            condition = f"startswith(id,'{prefix}')"
            found = self._client.list_pools(filter=condition, select=["id", "state", "metadata"])
            return [_pool(pool) for pool in found]

    def list_pools_with_resize_errors(self) -> list[Pool]:
        """List the pools whose last resize failed, with only id, state and errors."""
        with translated_errors("Batch", "list the pools"):
            pools = [_pool(pool) for pool in self._client.list_pools(select=["id", "state", "resizeErrors"])]
            return [pool for pool in pools if pool.resize_problems]

    def end_job(self, job_id: str, reason: str) -> None:
        """Terminate a job, which kills its running Batch tasks and rejects new ones."""
        # The SDK does not send the request without options.
        options: Any = {"terminateReason": reason}
        with translated_errors("Batch", f"terminate job {job_id}"):
            self._client.begin_terminate_job(job_id, options=options, polling_interval=1).wait(MAX_TERMINATION_SECONDS)

    def mark_job(self, job: Job) -> None:
        """Mark a job in its metadata, so that no later attempt of its flow run adopts it."""
        if CLEANUP_MARK in job.metadata:
            return
        metadata = _metadata({**job.metadata, CLEANUP_MARK: "started"})
        with suppress(NotFoundError), translated_errors("Batch", f"mark job {job.job_id}"):
            self._client.update_job(job.job_id, models.BatchJobUpdateOptions(metadata=metadata))

    def delete_jobs_and_pools(
        self, job_ids: Iterable[str], pool_ids: Iterable[str], wait_seconds: float
    ) -> dict[str, ServiceError]:
        """Delete jobs, then pools, and wait up to `wait_seconds` until they no longer exist.

        A failure does not stop the other deletions. Names that do not exist count as deleted.

        Returns:
            The errors, by "job …" or "pool …".
        """
        failures: dict[str, ServiceError] = {}
        pollers = []
        for kind, ids, begin_delete in (
            ("job", job_ids, self._client.begin_delete_job),
            ("pool", pool_ids, self._client.begin_delete_pool),
        ):
            for name in ids:
                try:
                    with translated_errors("Batch", f"delete {kind} {name}"):
                        pollers.append(begin_delete(name, polling_interval=1))
                except NotFoundError:
                    continue
                except ServiceError as error:
                    if not error.code.endswith("BeingDeleted"):
                        failures[f"{kind} {name}"] = error
        deadline = time.monotonic() + wait_seconds
        for poller in pollers:
            # The deletion was accepted. It continues even if its progress cannot be seen.
            with suppress(ServiceError), translated_errors("Batch", "get the progress of a deletion"):
                poller.wait(max(0.0, deadline - time.monotonic()))
        return failures

    def list_node_allocations(self, pool_id: str) -> list[NodeAllocation]:
        """List the allocation time and kind of each node of a pool, with one request per 1,000 nodes."""
        with translated_errors("Batch", f"list the nodes of pool {pool_id}"):
            found = self._client.list_nodes(
                pool_id, select=["id", "allocationTime", "isDedicated", "state"], max_results=MAX_PAGE_SIZE
            )
            return [
                NodeAllocation(
                    node_id=node.id,
                    allocated_at=node.allocation_time,
                    is_dedicated=bool(node.is_dedicated),
                    is_preempted=_text(node.state) == "preempted",
                )
                for node in found
            ]


def unknown_pool_properties(properties: Mapping[str, Any]) -> list[str]:
    """List the names in `properties` that the SDK's model of a pool does not contain."""
    return list(_unknown(models.BatchPoolCreateOptions, properties, ""))


def _unknown(model: Any, properties: Mapping[str, Any], path: str) -> Iterator[str]:
    fields = {field._rest_name: name for name, field in model._attr_to_rest_field.items()}  # noqa: SLF001 - no public API has these names
    for name, value in properties.items():
        if name not in fields:
            yield f"{path}{name}"
            continue
        inner = re.search(r"_models\.(\w+)", str(model.__annotations__.get(fields[name])))
        for each in value if isinstance(value, list) else [value]:
            if inner and isinstance(each, dict):
                yield from _unknown(getattr(models, inner[1]), each, f"{path}{name}.")


class _DatePolicy(SansIOHTTPPolicy[Any, Any]):
    """Dates each attempt of a request by the clock of the service."""

    def on_request(self, request: Any) -> None:
        sign_with_service_time(request, "Batch", "ocp-date")


def _error_code(result: models.BatchTaskCreateResult) -> str:
    return (result.error.code if result.error else None) or ""


def _rejection(result: models.BatchTaskCreateResult, operation: str) -> str | None:
    """Return the reason why Batch rejected a Batch task, or None if it was added.

    Raises:
        ServiceError: Batch failed, and a retry can succeed.
    """
    status, code = _text(result.status), _error_code(result)
    if status == "success":
        return None
    message = (result.error.message.value if result.error and result.error.message else None) or "no reason given"
    values = read_error_values(
        (each.key, each.value) for each in (result.error.error_values if result.error else ()) or ()
    )
    reason = f"{values.after(redact(message).splitlines()[0])} [{code}]"
    if status == "clienterror":
        return reason
    raise ServiceError(
        f"Batch could not {operation}: {reason}.", service="Batch", operation=operation, code=code, transient=True
    )


def _text(value: Any) -> str:
    """Return the lower-case text of an enum value; the SDK returns unknown values as plain strings."""
    return str(getattr(value, "value", value) or "").lower()


def _typed(value: Any, kind: type[_T]) -> _T:
    """Return a value of an answer; raise an error if it is missing or of another type."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def _instant(instant: datetime) -> str:
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _metadata(metadata: Mapping[str, str]) -> list[models.BatchMetadataItem]:
    return [models.BatchMetadataItem(name=name, value=value) for name, value in metadata.items()]


def _read_metadata(items: Iterable[models.BatchMetadataItem] | None) -> dict[str, str]:
    return {item.name: item.value for item in items or ()}


def _problem(error: Any) -> Problem:
    message = redact(error.message or "no message").splitlines()[0].rstrip(".")
    # The models of errors of pools and of nodes differ.
    pairs = getattr(error, "error_values", None) or getattr(error, "error_details", None) or ()
    values = read_error_values((each.name, each.value) for each in pairs)
    return Problem(
        code=error.code or "Unknown",
        message=values.after(message),
        provider_code=values.provider_code,
    )


def _resource_files(blobs: Iterable[Blob]) -> list[models.ResourceFile]:
    return [
        models.ResourceFile(http_url=blob.url, file_path=blob.file_path, identity_reference=_identity(blob.identity))
        for blob in blobs
    ]


def _identity(resource_id: str | None) -> models.BatchNodeIdentityReference | None:
    return None if resource_id is None else models.BatchNodeIdentityReference(resource_id=resource_id)


def _start_task(start_task: StartTask) -> models.BatchStartTask:
    return models.BatchStartTask(
        command_line=start_task.command_line,
        resource_files=_resource_files(start_task.files),
        max_task_retry_count=1,
        wait_for_success=True,
        user_identity=_admin() if start_task.as_admin else None,
    )


def _admin() -> models.UserIdentity:
    # With the scope "pool", Batch tasks run as the same user and can access the files of the start task.
    return models.UserIdentity(auto_user=models.AutoUserSpecification(scope="pool", elevation_level="admin"))


def _task(spec: BatchTaskSpec) -> models.BatchTaskCreateOptions:
    return models.BatchTaskCreateOptions(
        id=spec.task_id,
        command_line=spec.command_line,
        container_settings=_container(spec.container_image),
        resource_files=_resource_files(spec.resource_files),
        # A task without these properties is the same, and its request is shorter.
        environment_settings=[
            models.EnvironmentSetting(name=name, value=value) for name, value in spec.environment.items()
        ]
        or None,
        required_slots=spec.required_slots if spec.required_slots > 1 else None,
        output_files=[
            models.OutputFile(
                file_pattern=upload.pattern,
                destination=models.OutputFileDestination(
                    container=models.OutputFileBlobContainerDestination(
                        container_url=upload.container_url,
                        path=upload.path,
                        identity_reference=_identity(upload.identity),
                    )
                ),
                upload_options=models.OutputFileUploadConfiguration(
                    upload_condition=models.OutputFileUploadCondition.TASK_SUCCESS
                    if upload.only_on_success
                    else models.OutputFileUploadCondition.TASK_COMPLETION
                ),
            )
            for upload in spec.uploads
        ],
        constraints=models.BatchTaskConstraints(
            max_task_retry_count=spec.retries,
            max_wall_clock_time=None if spec.max_minutes is None else timedelta(minutes=spec.max_minutes),
            # One day is enough to inspect the files, and does not fill a node's disk.
            retention_time=timedelta(days=1),
        ),
    )


def _container(image: str | None) -> models.BatchTaskContainerSettings | None:
    if image is None:
        return None
    return models.BatchTaskContainerSettings(image_name=image, working_directory="taskWorkingDirectory")


def _pool(pool: models.BatchPool) -> Pool:
    scaling = pool.auto_scale_run
    identities = (pool.identity.user_assigned_identities if pool.identity else None) or ()
    return Pool(
        pool_id=pool.id,
        state=_text(pool.state),
        allocation_state=_text(pool.allocation_state),
        allocated_at=pool.allocation_state_transition_time,
        resize_problems=tuple(_problem(error) for error in pool.resize_errors or ()),
        metadata=_read_metadata(pool.metadata),
        identities=tuple(identity.resource_id for identity in identities),
        scaled_at=scaling.timestamp if scaling else None,
        autoscale_problem=_problem(scaling.error) if scaling and scaling.error else None,
        slots_per_node=pool.task_slots_per_node or 1,
    )


def _job(job: models.BatchJob) -> Job:
    return Job(
        job_id=job.id,
        pool_id=(job.pool_info.pool_id if job.pool_info else None) or "",
        state=_text(job.state),
        created_at=job.creation_time,
        terminate_reason=job.execution_info.termination_reason if job.execution_info else None,
        metadata=_read_metadata(job.metadata),
    )


def _outcome(task: models.BatchTask) -> BatchTaskOutcome:
    info = task.execution_info
    failure = info.failure_info if info else None
    return BatchTaskOutcome(
        task_id=task.id,
        state=_text(task.state),
        result=_text(info.result) or None if info else None,
        started_at=info.start_time if info else None,
        ended_at=info.end_time if info else None,
        exit_code=info.exit_code if info else None,
        failure_code=failure.code if failure else None,
        failure_message=redact(failure.message or "") if failure else None,
        node_id=task.node_info.node_id if task.node_info else None,
        retry_count=info.retry_count if info else 0,
        requeue_count=info.requeue_count if info else 0,
    )


def _image(image: models.BatchSupportedImage) -> Image:
    reference = image.image_reference
    return Image(
        publisher=reference.publisher or "",
        offer=reference.offer or "",
        sku=reference.sku or "",
        version=reference.version or "latest",
        node_agent_sku=image.node_agent_sku_id,
        is_verified=_text(image.verification_type) == "verified",
        is_linux=_text(image.os_type) == "linux",
        end_of_life_at=image.batch_support_end_of_life,
        capabilities=frozenset(_text(capability) for capability in image.capabilities or ()),
    )
