"""Properties of request bodies: those of all official clients are accepted, and no others."""

import json
import re
from datetime import timedelta

import pytest
from azure.batch import models
from azure.batch.models import _enums as enums

from localbatch.api.known_properties import TYPES
from localbatch.testing import MACHINE_JSON

API = "api-version=2025-06-01"
OPTIONS = {
    "pool": models.BatchPoolCreateOptions,
    "pool_patch": models.BatchPoolUpdateOptions,
    "pool_properties": models.BatchPoolReplaceOptions,
    "resize": models.BatchPoolResizeOptions,
    "remove_nodes": models.BatchNodeRemoveOptions,
    "enable_autoscale": models.BatchPoolEnableAutoScaleOptions,
    "evaluate_autoscale": models.BatchPoolEvaluateAutoScaleOptions,
    "job": models.BatchJobCreateOptions,
    "job_change": models.BatchJobUpdateOptions,
    "job_replacement": models.BatchJobUpdateOptions,
    "job_schedule": models.BatchJobScheduleCreateOptions,
    "job_schedule_change": models.BatchJobScheduleUpdateOptions,
    "job_schedule_replacement": models.BatchJobScheduleUpdateOptions,
    "node_user": models.BatchNodeUserCreateOptions,
    "node_user_change": models.BatchNodeUserReplaceOptions,
    "upload_logs": models.UploadBatchServiceLogsOptions,
    "disable_job": models.BatchJobDisableOptions,
    "terminate_job": models._models.BatchJobTerminateOptions,
    "task": models.BatchTaskCreateOptions,
    "tasks": models.BatchTaskGroup,
    "reboot": models._models.BatchNodeRebootOptions,
    "reimage": models._models.BatchNodeReimageOptions,
    "deallocate": models._models.BatchNodeDeallocateOptions,
    "disable_scheduling": models._models.BatchNodeDisableSchedulingOptions,
}
# The names of `known_properties.TYPES`, by Python types of the SDK.
KINDS = {str: {"string", "secret", "duration"}, int: {"int"}, bool: {"bool"}, timedelta: {"duration", "string"}}


def properties(model):
    """Yield the properties of a model: the name on the wire, whether it is required, and what the annotation names."""
    model.__new__(model)  # It learns the names when it is first made.
    for name, field in model._attr_to_rest_field.items():
        annotation = str(model.__annotations__[name])
        inner = re.search(r"(?:_enums|_models)\.([A-Z]\w+)", annotation)
        yield field._rest_name, inner and inner[1], "Optional" not in annotation, annotation


def check_known(model, kind, seen):
    if (model, kind) in seen:
        return
    seen.add((model, kind))
    for name, inner, is_required, annotation in properties(model):
        assert name in TYPES[kind], (model, name)
        known = TYPES[kind][name]
        assert known.is_list == bool(re.search("[Ll]ist", annotation)), (model, name)
        enum = getattr(enums, inner, None) if inner else None
        if enum:
            assert set(known.values) >= {each.value.lower() for each in enum}, (model, name)
        elif inner and known.kind != "object":  # The tasks of a collection are read one by one.
            check_known(getattr(models._models, inner), known.kind, seen)
        elif not known.is_list and known.kind not in {"any", "object"}:
            python_type = next((each for each in KINDS if f"{each.__name__}" in annotation), str)
            assert known.kind in KINDS[python_type], (model, name)
        # What the SDK requires has a default on the service in places, but not the other way round.
        assert is_required or not known.is_required or name in {"resourceId", "container"}, (model, name)


@pytest.mark.parametrize("kind", OPTIONS)
def test_all_sdk_properties_are_known(kind):
    assert list(properties(OPTIONS[kind]))
    check_known(OPTIONS[kind], kind, set())


def test_every_body_is_compared_with_the_sdk():
    # The SDK sends a whole task where the service reads its constraints.
    assert {kind for kind in TYPES if kind.islower()} - set(OPTIONS) == {"task_change"}


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/jobs", {"poolInfo": {"poolId": "x"}, "prority": 1}, "prority"),
        ("/jobs", {"poolInfo": {"poolID": "x"}}, "poolID"),
        ("/jobs", {"poolInfo": {"poolId": "x"}, "metadata": [{"name": "a", "value": "1", "type": "s"}]}, "type"),
        ("/pools", {**MACHINE_JSON, "targetDedicated": 1}, "targetDedicated"),
        ("/pools", {**MACHINE_JSON, "startTask": {"commandLine": "true", "wait": True}}, "wait"),
        ("/jobs/{job}/tasks", {"commandLine": "true", "outputFiles": [{"pattern": "x"}]}, "pattern"),
        ("/jobs/{job}/addtaskcollection", {"value": [{"id": "a", "commandline": "true"}]}, "commandline"),
        ("/jobs/{job}/terminate", {"reason": "enough"}, "reason"),
        ("/pools", MACHINE_JSON | {"networkConfiguration": {"publicIPAddressConfiguration": {"ip": []}}}, "ip"),
    ],
)
def test_unknown_property_is_refused(ask, job_factory, path, body, name):
    job_id = job_factory()
    target = path.format(job=job_id)
    if "value" not in body and "reason" not in body:
        body = {"id": f"{job_id}-x"} | body
    status, answer, _ = ask("POST", f"{target}?{API}", json.dumps(body).encode())
    assert (status, answer["code"]) == (400, "InvalidRequestBody")
    ((key, reason),) = [each.values() for each in answer["values"]]
    assert key == "Reason"
    assert reason.startswith(f"The property '{name}' does not exist on type 'Microsoft.Azure.Batch.Protocol.Entities.")
    assert ask("GET", f"{target}/{job_id}-x?{API}")[0] != 200
    assert ask("GET", f"/jobs/{job_id}?{API}")[1]["state"] == "active"


def test_older_properties_and_annotations_are_accepted(ask, name):
    older = {
        "certificateReferences": [],
        "resourceTags": {"any": "tag"},
        "targetNodeCommunicationMode": "simplified",
        "odata.type": "x",
    }
    body = {"id": name, **MACHINE_JSON} | older
    assert ask("POST", "/pools?api-version=2024-02-01.19.0", json.dumps(body).encode())[0] == 201
    assert ask("DELETE", f"/pools/{name}?{API}")[0] == 202


def test_whole_records_can_be_put_back(client, ask, job_factory, name):
    """Recorded with the id of a job in `jobs.spec.ts` of azure-sdk-for-js."""
    job_id = job_factory()
    client.create_task(job_id, models.BatchTaskCreateOptions(id="task", command_line="true"))
    specification = {"poolInfo": {"poolId": "nowhere"}}
    client.create_job_schedule({"id": name, "schedule": {}, "jobSpecification": specification})
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/tasks/task", f"/jobschedules/{name}"):
        whole = ask("GET", f"{path}?{API}")[1]
        changed = whole | {"commandLine": "false", "onTaskFailure": "performexitoptionsjobaction", "state": "completed"}
        known = {key: value for key, value in changed.items() if key in whole}
        assert ask("PUT", f"{path}?{API}", json.dumps(known).encode())[0] == 200
        now = ask("GET", f"{path}?{API}")[1]
        changing = {"eTag", "lastModified", "metadata"}
        assert {key: value for key, value in now.items() if key not in changing} == {
            key: value for key, value in whole.items() if key not in changing
        }
    client.begin_delete_job_schedule(name, polling_interval=0).wait()


def test_customer_managed_key_needs_an_identity(ask, name):
    """As recorded in `poolsAdditional.spec.ts` of azure-sdk-for-js."""
    key = {"keyUrl": "https://vault/keys/k", "identityReference": {"resourceId": "/identity"}}
    machine = MACHINE_JSON["virtualMachineConfiguration"] | {"diskEncryptionConfiguration": {"customerManagedKey": key}}
    body = {"id": name, **MACHINE_JSON, "virtualMachineConfiguration": machine}
    status, answer, _ = ask("POST", f"/pools?{API}", json.dumps(body).encode())
    assert (status, answer["code"]) == (400, "InvalidPropertyValue")
    reason = "Pool Identity is required when using CustomerManagedKey."
    assert {"key": "Reason", "value": reason} in answer["values"]
