"""The failure information of tasks that did not succeed.

https://learn.microsoft.com/rest/api/batchservice/tasks/get-task#batchtaskfailureinfo
"""

from __future__ import annotations

from typing import Final

from localbatch.account.specs import Json

_ENDED: Final = {"category": "usererror", "code": "TaskEnded"}
USER_ENDED: Json = {**_ENDED, "message": "Task was ended by user request"}
JOB_ENDED: Json = {**_ENDED, "message": "Task was ended because its job ended"}
NODE_ENDED: Json = {**_ENDED, "message": "Task was ended because its node was taken away"}
WALL_CLOCK_ENDED: Json = {**_ENDED, "message": "Task was ended because it exceeded its maximum wall clock time"}
EXIT_CODE_FAILURE: Json = {
    "category": "usererror",
    "code": "FailureExitCode",
    "message": "The task exited with an exit code representing a failure",
    "details": [
        {"name": "Message", "value": "The task process exited with an unexpected exit code"},
        {"name": "AdditionalErrorCode", "value": "FailureExitCode"},
    ],
}
# https://github.com/microsoft/ga4gh-tes/issues/525
CONTAINER_SETTINGS_NOT_FOUND: Json = {
    "category": "usererror",
    "code": "ContainerTaskSettingsNotFound",
    "message": "Container-enabled compute node requires task container settings",
}


def upload_failure(code: str) -> Json:
    """Return the failure of an output file that could not be uploaded."""
    return {"category": "servererror", "code": code, "message": "An output file could not be uploaded"}
