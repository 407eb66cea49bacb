"""The Azure Batch account: the only importer of `azure.batch`.

One method per operation that the steps use, our own values in and out, no policy beyond the retries of a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

from azure.batch import BatchClient, models
from azure.batch.models import _models
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, HttpResponseError, ResourceModifiedError, ResourceNotFoundError

from tasks.azure.client import TransientRetryPolicy, client_options, default_identity, translate, translated_errors
from tasks.azure.pool_request import pool_properties
from tasks.azure.settings import AzureSettings, account_of
from tasks.azure.values import (
    BatchTaskSpec,
    Blob,
    Image,
    Job,
    JobSpec,
    Node,
    NodeLife,
    Pool,
    PoolSpec,
    Problem,
    StartTask,
    TaskCounts,
)
from tasks.errors import NotFoundError, ServiceError
from tasks.model.verdict import BatchTaskOutcome
from tasks.redaction import redacted

# Source: Batch REST API 2025-06-01, Task - Create Task Collection.
MAX_TASKS_PER_REQUEST = 100

# A job ends as soon as its Batch tasks are killed.
END_SECONDS = 10.0

# Source: Batch REST API 2025-06-01, Task - Reactivate.
NOT_REACTIVATED_CODES = frozenset({"TaskNotCompleted", "TaskSucceeded"})

# Source: Batch REST API 2025-06-01, limits of `maxresults`.
PAGE_SIZE = 1000

# A model learns the names of its fields when it is first made, and its making fails in one thread while another does
# that (azure-sdk-for-python#47426); the SDK hides this in what it reads, and gives raw values. So each is made here.
for _model in list(vars(_models).values()):
    if isinstance(_model, type) and issubclass(_model, MutableMapping):
        _model.__new__(_model)


class BatchAccount:
    """A client of one Batch account; safe to share between threads."""

    def __init__(self, settings: AzureSettings) -> None:
        endpoint = settings.batch_endpoint or ""
        account = settings.batch_account or account_of(endpoint) or ""
        if settings.batch_key is None:
            credential: Any = default_identity()
        else:
            credential = AzureNamedKeyCredential(account, settings.batch_key.get_secret_value())
        self._client = BatchClient(endpoint=endpoint, credential=credential, **client_options(TransientRetryPolicy()))

    def images(self, **request_options: Any) -> list[Image]:
        """List the images that a pool can be made from."""
        with translated_errors("Batch", "list the supported images"):
            return [_image(image) for image in self._client.list_supported_images(**request_options)]

    def check_writing(self) -> None:
        """Ask for the deletion of a job and a pool that there are not, to see that it would be allowed.

        Raises:
            ServiceError: It would not, or Batch did not answer.
        """
        nothing = f"topn-check-{uuid4().hex}"
        for kind, delete in (("job", self._client.begin_delete_job), ("pool", self._client.begin_delete_pool)):
            with suppress(NotFoundError), translated_errors("Batch", f"delete a {kind}"):
                delete(nothing, polling_interval=1)

    def create_pool(self, spec: PoolSpec) -> None:
        """Create a pool that scales by its formula from the start.

        Raises:
            AlreadyExistsError: A pool of this id exists.
            ConfigurationError: Something in `extra` of its set-up is set by another field.
        """
        pool = models.BatchPoolCreateOptions(pool_properties(spec))
        pool.start_task = _start_task(spec.start_task)
        with translated_errors("Batch", f"create pool {spec.pool_id}"):
            self._client.create_pool(pool)

    def update_start_task(self, pool_id: str, start_task: StartTask) -> None:
        """Replace the start task of a pool, for the nodes that join or restart from now on."""
        with translated_errors("Batch", f"update pool {pool_id}"):
            self._client.update_pool(pool_id, models.BatchPoolUpdateOptions(start_task=_start_task(start_task)))

    def pool(self, pool_id: str) -> Pool:
        """Look at a pool; `allocated_at` is when its allocation state last changed.

        Raises:
            NotFoundError: There is none.
        """
        with translated_errors("Batch", f"look at pool {pool_id}"):
            pool = self._client.get_pool(pool_id)
        return _pool(pool)

    def nodes(self, pool_id: str) -> list[Node]:
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
        """Restart a node, which runs its start task again; its Batch tasks are started elsewhere.

        Without an option, the SDK refuses to send the request.
        """
        options: Any = {"nodeRebootOption": "requeue"}
        with translated_errors("Batch", f"reboot node {node_id}"):
            self._client.begin_reboot_node(pool_id, node_id, options=options)

    def node_file_tail(self, pool_id: str, node_id: str, path: str, length: int = 2000) -> str:
        """Read the end of a text file on a node.

        Raises:
            NotFoundError: The file, or the node, is not there any more.
        """
        with translated_errors("Batch", f"read {path} of node {node_id}"):
            content = b"".join(self._client.download_node_file(pool_id, node_id, path))
        return content[-length:].decode("utf-8", "replace")

    def create_job(self, spec: JobSpec) -> None:
        """Create a job that ends at its wall clock.

        Raises:
            AlreadyExistsError: A job of this id exists.
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

    def job(self, job_id: str) -> Job:
        """Look at a job.

        Raises:
            NotFoundError: There is none.
        """
        with translated_errors("Batch", f"look at job {job_id}"):
            return _job(self._client.get_job(job_id))

    def add_tasks(self, job_id: str, specs: Sequence[BatchTaskSpec]) -> dict[str, str]:
        """Add Batch tasks to a job, in requests of at most 100, halved where a request's body is too large.

        A Batch task whose id exists counts as added, so a repeat is safe: ids name the content that is counted.
        The SDK's own `create_tasks` is not used, since it takes refused tasks for added ones, and repeats a request
        that fails with a server error without end.

        Returns:
            Why the service refused a Batch task, by task id; the others are in the job.

        Raises:
            ServiceError: A whole request was refused; what was added before stays.
        """
        refused: dict[str, str] = {}
        waiting = [list(specs[i : i + MAX_TASKS_PER_REQUEST]) for i in range(0, len(specs), MAX_TASKS_PER_REQUEST)]
        while waiting:
            batch = waiting.pop(0)
            try:
                refused.update(self._add_collection(job_id, batch))
            except ServiceError as error:
                if error.code != "RequestBodyTooLarge" or len(batch) == 1:
                    raise
                middle = len(batch) // 2
                waiting[:0] = [batch[:middle], batch[middle:]]
        return refused

    def _add_collection(self, job_id: str, specs: Sequence[BatchTaskSpec]) -> dict[str, str]:
        group = models.BatchTaskGroup(task_values=[_task(spec) for spec in specs])
        operation = f"add {len(specs)} Batch tasks to job {job_id}"
        with translated_errors("Batch", operation):
            answer = self._client.create_task_collection(job_id, group)
        refused: dict[str, str] = {}
        answered = set()
        for result in answer.result_values or ():
            answered.add(result.task_id)
            status, code = _text(result.status), (result.error.code if result.error else None) or ""
            if status == "success" or code == "TaskExists":
                continue
            message = (result.error.message.value if result.error and result.error.message else None) or "no reason"
            reason = f"{redacted(message).splitlines()[0]} [{code}]"
            if status == "servererror":
                raise ServiceError(
                    f"Batch could not {operation}: {reason}.",
                    service="Batch",
                    operation=operation,
                    code=code,
                    transient=True,
                )
            refused[result.task_id] = reason
        for spec in specs:
            if spec.task_id not in answered:
                refused[spec.task_id] = "the service did not answer for it"
        return refused

    def task_counts(self, job_id: str) -> TaskCounts:
        """Count a job's Batch tasks by state: one request, whatever their number."""
        with translated_errors("Batch", f"count the Batch tasks of job {job_id}"):
            counts = self._client.get_job_task_counts(job_id).task_counts
        return TaskCounts(active=counts.active, running=counts.running, completed=counts.completed)

    def completed_tasks(self, job_id: str, since: datetime | None) -> Iterator[tuple[datetime, BatchTaskOutcome]]:
        """List the Batch tasks that completed at or after an instant, with that of each, in pages."""
        condition = "state eq 'completed'"
        if since is not None:
            condition += f" and stateTransitionTime ge DateTime'{_instant(since)}'"
        with translated_errors("Batch", f"list the completed Batch tasks of job {job_id}"):
            for task in self._client.list_tasks(
                job_id,
                filter=condition,
                select=["id", "state", "stateTransitionTime", "executionInfo", "nodeInfo"],
                max_results=PAGE_SIZE,
            ):
                yield task.state_transition_time, _outcome(task)

    def waiting_tasks(self, job_id: str) -> dict[str, str]:
        """List the Batch tasks that wait for a node: their versions, by task id."""
        with translated_errors("Batch", f"list the waiting Batch tasks of job {job_id}"):
            found = self._client.list_tasks(
                job_id, filter="state eq 'active'", select=["id", "eTag"], max_results=PAGE_SIZE
            )
            return {task.id: task.etag for task in found}

    def delete_task(self, job_id: str, task_id: str, version: str) -> bool:
        """Delete a Batch task, unless it is of another version by now or gone; returns whether it was deleted."""
        try:
            self._client.delete_task(job_id, task_id, etag=version, match_condition=MatchConditions.IfNotModified)
        except (ResourceModifiedError, ResourceNotFoundError):
            return False
        except AzureError as error:
            raise translate(error, "Batch", f"delete Batch task {task_id}") from error
        return True

    def reactivate_task(self, job_id: str, task_id: str) -> bool:
        """Let a completed Batch task that failed run again; returns whether it will, as it does not if it succeeded."""
        try:
            with translated_errors("Batch", f"reactivate Batch task {task_id}"):
                self._client.reactivate_task(job_id, task_id)
        except ServiceError as error:
            if error.code not in NOT_REACTIVATED_CODES:
                raise
            # The reply to a first request was lost, and the Batch task runs already.
            return error.code == "TaskNotCompleted"
        return True

    def jobs(self, prefix: str) -> list[Job]:
        """List the jobs whose ids begin with a prefix."""
        with translated_errors("Batch", f"list jobs {prefix}…"):
            return [_job(job) for job in self._client.list_jobs(filter=f"startswith(id,'{prefix}')")]

    def pools(self, prefix: str) -> list[Pool]:
        """List the pools whose ids begin with a prefix: their ids, states and metadata alone."""
        with translated_errors("Batch", f"list pools {prefix}…"):
            condition = f"startswith(id,'{prefix}')"
            found = self._client.list_pools(filter=condition, select=["id", "state", "metadata"])
            return [_pool(pool) for pool in found]

    def stuck_pools(self) -> list[Pool]:
        """List the pools whose last resize met an error: their ids, states and errors alone."""
        with translated_errors("Batch", "list the pools"):
            pools = [_pool(pool) for pool in self._client.list_pools(select=["id", "state", "resizeErrors"])]
        return [pool for pool in pools if pool.resize_problems]

    def end_job(self, job_id: str, reason: str) -> None:
        """Terminate a job: its running Batch tasks are killed, and it takes no more.

        Without a reason, the SDK refuses to send the request.
        """
        options: Any = {"terminateReason": reason}
        with translated_errors("Batch", f"end job {job_id}"):
            self._client.begin_terminate_job(job_id, options=options, polling_interval=1).wait(END_SECONDS)

    def delete_jobs_and_pools(
        self, job_ids: Iterable[str], pool_ids: Iterable[str], wait_seconds: float
    ) -> dict[str, ServiceError]:
        """Delete jobs, then pools: go on after a failure, and wait a while until they are gone.

        Returns:
            What could not be deleted, by "job …" or "pool …"; what is gone already counts as deleted.
        """
        failures: dict[str, ServiceError] = {}
        pollers = []
        for kind, ids, begin in (
            ("job", job_ids, self._client.begin_delete_job),
            ("pool", pool_ids, self._client.begin_delete_pool),
        ):
            for name in ids:
                try:
                    pollers.append(begin(name, polling_interval=1))
                except ResourceNotFoundError:
                    continue
                except HttpResponseError as error:
                    if not str(getattr(error.error, "code", "")).endswith("BeingDeleted"):
                        failures[f"{kind} {name}"] = translate(error, "Batch", f"delete {kind} {name}")
                except Exception as error:  # noqa: BLE001 - one failure must not keep the rest from being deleted
                    failures[f"{kind} {name}"] = ServiceError(
                        f"Batch could not delete {kind} {name}: no answer ({type(error).__name__}).",
                        service="Batch",
                        operation=f"delete {kind} {name}",
                        transient=True,
                    )
        give_up_at = datetime.now(timezone.utc) + timedelta(seconds=wait_seconds)
        for poller in pollers:
            poller.wait(max(0.0, (give_up_at - datetime.now(timezone.utc)).total_seconds()))
        return failures

    def node_lives(self, pool_id: str) -> list[NodeLife]:
        """List since when each node of a pool has been there: one request for a thousand nodes."""
        with translated_errors("Batch", f"list the nodes of pool {pool_id}"):
            found = self._client.list_nodes(
                pool_id, select=["id", "allocationTime", "isDedicated", "state"], max_results=PAGE_SIZE
            )
            return [
                NodeLife(
                    node_id=node.id,
                    allocated_at=node.allocation_time,
                    is_dedicated=bool(node.is_dedicated),
                    is_preempted=_text(node.state) == "preempted",
                )
                for node in found
            ]


def unknown_pool_properties(properties: Mapping[str, Any]) -> list[str]:
    """List the names in a pool's properties that the REST API does not have, as the SDK knows it."""
    return list(_unknown(models.BatchPoolCreateOptions, properties, ""))


def _unknown(model: Any, properties: Mapping[str, Any], path: str) -> Iterator[str]:
    fields = {field._rest_name: name for name, field in model._attr_to_rest_field.items()}  # noqa: SLF001 - nothing else tells
    for name, value in properties.items():
        if name not in fields:
            yield f"{path}{name}"
            continue
        inner = re.search(r"_models\.(\w+)", str(model.__annotations__.get(fields[name])))
        for each in value if isinstance(value, list) else [value]:
            if inner and isinstance(each, dict):
                yield from _unknown(getattr(models, inner[1]), each, f"{path}{name}.")


def _text(value: Any) -> str:
    """Read an enum's wire value, whatever its case: the SDK passes unknown cases through as they came."""
    return str(getattr(value, "value", value) or "").lower()


def _instant(instant: datetime) -> str:
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _metadata(metadata: Mapping[str, str]) -> list[models.BatchMetadataItem]:
    return [models.BatchMetadataItem(name=name, value=value) for name, value in metadata.items()]


def _read_metadata(items: Iterable[models.BatchMetadataItem] | None) -> dict[str, str]:
    return {item.name: item.value for item in items or ()}


def _problem(error: Any) -> Problem:
    return Problem(code=error.code or "Unknown", message=redacted(error.message or "no message").splitlines()[0])


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
    # Of the pool, so that what it leaves belongs to the user that Batch tasks have, too.
    return models.UserIdentity(auto_user=models.AutoUserSpecification(scope="pool", elevation_level="admin"))


def _task(spec: BatchTaskSpec) -> models.BatchTaskCreateOptions:
    return models.BatchTaskCreateOptions(
        id=spec.task_id,
        command_line=spec.command_line,
        container_settings=_container(spec.container_image),
        resource_files=_resource_files(spec.resource_files),
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
            # A day: long enough to look at, short enough not to fill a node's disk.
            retention_time=timedelta(days=1),
        ),
    )


def _container(image: str | None) -> models.BatchTaskContainerSettings | None:
    if image is None:
        return None
    return models.BatchTaskContainerSettings(image_name=image, working_directory="taskWorkingDirectory")


def _pool(pool: models.BatchPool) -> Pool:
    identities = (pool.identity.user_assigned_identities if pool.identity else None) or ()
    return Pool(
        pool_id=pool.id,
        state=_text(pool.state),
        allocation_state=_text(pool.allocation_state),
        allocated_at=pool.allocation_state_transition_time,
        resize_problems=tuple(_problem(error) for error in pool.resize_errors or ()),
        metadata=_read_metadata(pool.metadata),
        identities=tuple(identity.resource_id for identity in identities),
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
        failure_message=redacted(failure.message or "") if failure else None,
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
        runs_containers="dockercompatible" in {_text(capability) for capability in image.capabilities or ()},
    )
