"""The error codes of the service: one constructor each, with status and message.

https://learn.microsoft.com/rest/api/batchservice/batch-status-and-error-codes
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any


class ServiceError(Exception):
    """An error response."""

    def __init__(self, status: int, code: str, sentence: str, values: dict[str, str]) -> None:
        super().__init__(f"({code}) {sentence}")
        self.status = status
        self.code = code
        self.sentence = sentence
        # Details for the reader, such as the name of the property.
        self.values = values

    def document(self, base: str, now: datetime) -> dict[str, Any]:
        """Return the body of the response, for an account with the URL `base`."""
        kind = f"{base}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element"
        return {"odata.metadata": kind} | self.body(now)

    def body(self, now: datetime) -> dict[str, Any]:
        """Return the JSON of the error, which is also part of the results of addtaskcollection."""
        # The service appends the request id and the time to the message.
        time = now.isoformat(timespec="microseconds").replace("+00:00", "0Z")
        value = f"{self.sentence}\nRequestId:{uuid.uuid4()}\nTime:{time}"
        error: dict[str, Any] = {"code": self.code, "message": {"lang": "en-US", "value": value}}
        if self.values:
            error["values"] = [{"key": key, "value": text} for key, text in self.values.items()]
        return error


# Status, code and message of every error.
CODES: list[tuple[int, str, str]] = []


def _code(status: int, code: str, sentence: str) -> Callable[..., ServiceError]:
    CODES.append((status, code, sentence))

    def construct(**values: object) -> ServiceError:
        return ServiceError(status, code, sentence, {key: str(value) for key, value in values.items()})

    return construct


missing_required_property = _code(
    400, "MissingRequiredProperty", "A required property was not specified in the request body."
)
unsupported_property = _code(
    400, "UnsupportedProperty", "One of the properties specified in the request body is not supported."
)
invalid_property_value = _code(
    400, "InvalidPropertyValue", "The value provided for one of the properties in the request body is invalid."
)
task_dependencies_not_specified_on_job = _code(
    400,
    "TaskDependenciesNotSpecifiedOnJob",
    "A task was specified as depending on other tasks, but the job did not specify that it would use task dependencies.",
)
task_dependency_list_too_long = _code(
    400, "TaskDependencyListTooLong", "The list of task IDs that a task depends on is too long."
)
task_dependency_ranges_too_long = _code(
    400, "TaskDependencyRangesTooLong", "The list of task ID ranges that a task depends on is too long."
)
missing_required_query_parameter = _code(
    400, "MissingRequiredQueryParameter", "A query parameter that's mandatory for this request is not specified."
)
invalid_query_parameter_value = _code(
    400,
    "InvalidQueryParameterValue",
    "Value for one of the query parameters specified in the request URI is invalid.",
)
out_of_range_query_parameter_value = _code(
    400, "OutOfRangeQueryParameterValue", "A query parameter specified in the request is outside the permissible range."
)
invalid_header_value = _code(
    400, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format."
)
invalid_input = _code(400, "InvalidInput", "One of the request inputs is not valid.")
invalid_uri = _code(400, "InvalidUri", "The requested URI does not represent any resource on the server.")
invalid_request_body = _code(400, "InvalidRequestBody", "The specified Request Body is not syntactically valid.")
invalid_authentication_info = _code(
    400, "InvalidAuthenticationInfo", "The authentication information was not provided in the correct format."
)
unsupported_request_version = _code(
    400, "UnsupportedRequestVersion", "The request version specified in the request URL is unsupported."
)
# The service sends the same code with 401 for tokens and with 403 for keys.
_NOT_AUTHENTICATED = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly "
    "including the signature."
)
token_refused = _code(401, "AuthenticationFailed", _NOT_AUTHENTICATED)
authentication_failed = _code(403, "AuthenticationFailed", _NOT_AUTHENTICATED)
pool_not_found = _code(404, "PoolNotFound", "The specified pool does not exist.")
node_not_found = _code(404, "NodeNotFound", "The specified node does not exist.")
job_not_found = _code(404, "JobNotFound", "The specified job does not exist.")
job_schedule_not_found = _code(404, "JobScheduleNotFound", "The specified job schedule does not exist.")
task_not_found = _code(404, "TaskNotFound", "The specified task does not exist.")
file_not_found = _code(404, "FileNotFound", "The specified file does not exist.")
node_user_not_found = _code(404, "NodeUserNotFound", "The specified node user does not exist.")
application_not_found = _code(404, "ApplicationNotFound", "The specified application does not exist.")
unsupported_http_verb = _code(405, "UnsupportedHttpVerb", "The resource doesn't support the specified HTTP verb.")
operation_invalid_for_current_state = _code(
    409,
    "OperationInvalidForCurrentState",
    "The specified operation is not valid for the current state of the resource.",
)
pool_exists = _code(409, "PoolExists", "The specified pool already exists.")
pool_being_deleted = _code(
    409, "PoolBeingDeleted", "The specified pool has been marked for deletion and is being reclaimed."
)
pool_being_resized = _code(409, "PoolBeingResized", "The specified pool is being resized.")
pool_quota_reached = _code(409, "PoolQuotaReached", "The pool quota for the account has been reached.")
node_being_created = _code(409, "NodeBeingCreated", "The specified node is being created.")
node_being_started = _code(409, "NodeBeingStarted", "The specified node is being started.")
node_being_rebooted = _code(409, "NodeBeingRebooted", "The specified node is being rebooted.")
node_being_reimaged = _code(409, "NodeBeingReimaged", "The specified node is being reimaged.")
operation_not_valid_on_node = _code(409, "OperationNotValidOnNode", "The specified operation is not valid on the node.")
node_already_in_target_scheduling_state = _code(
    409, "NodeAlreadyInTargetSchedulingState", "The specified node is already in the target scheduling state."
)
invalid_application_package_references = _code(
    409, "InvalidApplicationPackageReferences", "One or more of the specified application packages do not exist."
)
node_state_unusable = _code(409, "NodeStateUnusable", "The specified node is in an unusable state.")
node_user_exists = _code(409, "NodeUserExists", "The specified node user already exists.")
job_exists = _code(409, "JobExists", "The specified job already exists.")
job_being_terminated = _code(409, "JobBeingTerminated", "The specified job is being terminated.")
job_being_deleted = _code(
    409, "JobBeingDeleted", "The specified job has been marked for deletion and is being garbage collected."
)
job_completed = _code(409, "JobCompleted", "The specified job is already in a completed state.")
job_quota_reached = _code(
    409, "ActiveJobAndScheduleQuotaReached", "The active job and job schedule quota for the account has been reached."
)
job_with_same_id_exists = _code(
    409, "JobWithSameIdExists", "A job with the ID of the job schedule exists. They cannot have the same ID."
)
job_schedule_with_same_id_exists = _code(
    409, "JobScheduleWithSameIdExists", "A job schedule with the ID of the job exists. They cannot have the same ID."
)
job_schedule_exists = _code(409, "JobScheduleExists", "The specified job schedule already exists.")
job_schedule_disabled = _code(409, "JobScheduleDisabled", "The specified job schedule is disabled.")
job_schedule_completed = _code(
    409, "JobScheduleCompleted", "The specified job schedule is already in a completed state."
)
job_schedule_being_terminated = _code(
    409, "JobScheduleBeingTerminated", "The specified job schedule is being terminated."
)
job_schedule_being_deleted = _code(
    409,
    "JobScheduleBeingDeleted",
    "The specified job schedule has been marked for deletion and is being reclaimed.",
)
job_preparation_task_or_release_task_not_specified = _code(
    409,
    "JobPreparationTaskOrReleaseTaskNotSpecified",
    "The specified job does not have either job preparation task or job release task.",
)
task_id_same_as_job_preparation_task = _code(
    409, "TaskIdSameAsJobPreparationTask", "The specified task ID is the same as the ID of the job preparation task."
)
task_id_same_as_job_release_task = _code(
    409, "TaskIdSameAsJobReleaseTask", "The specified task ID is the same as the ID of the job release task."
)
task_exists = _code(409, "TaskExists", "The specified task already exists.")
task_completed = _code(409, "TaskCompleted", "The specified task is already in a completed state.")
task_not_completed = _code(409, "TaskNotCompleted", "The specified task is not in a completed state.")
task_succeeded = _code(409, "TaskSucceeded", "The specified task completed successfully.")
task_files_unavailable = _code(
    409,
    "TaskFilesUnavailable",
    "The specified task's files are not available, since it has not run or its node is gone.",
)
task_files_cleaned_up = _code(
    409, "TaskFilesCleanedup", "The specified task's files have been removed, since their retention time is over."
)
# The same code with two status: 304 for reads, 412 for changes.
not_modified = _code(304, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
condition_not_met = _code(
    412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met."
)
request_body_too_large = _code(
    413, "RequestBodyTooLarge", "The request body is too large and exceeds the maximum permissible limit."
)
invalid_range = _code(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
operation_timed_out = _code(500, "OperationTimedOut", "Operation could not be completed within the specified time.")
internal_error = _code(500, "InternalError", "Server encountered an internal error. Please try again after some time.")
too_many_enable_auto_scale_requests = _code(
    503,
    "TooManyEnableAutoScaleRequests",
    "Autoscale was enabled on the specified pool less than 30 seconds ago. Please try again after some time.",
)
not_implemented = _code(501, "NotImplemented", "The local Batch service does not serve this operation.")


def formula_refused(code: str, message: str) -> ServiceError:
    """Return the error of an autoscale formula, with the code and message of the evaluator."""
    return ServiceError(400, code, message, {})
