"""Properties of request bodies: those of all official clients are accepted, and no others."""

import json
import re

import pytest
from azure.batch import models

from localbatch.api.known_properties import BODIES, INSIDE

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
    "disable_job": models.BatchJobDisableOptions,
    "terminate_job": models._models.BatchJobTerminateOptions,
    "job_schedule": models.BatchJobScheduleCreateOptions,
    "job_schedule_change": models.BatchJobScheduleUpdateOptions,
    "task": models.BatchTaskCreateOptions,
    "tasks": models.BatchTaskGroup,
    "reboot": models._models.BatchNodeRebootOptions,
    "reimage": models._models.BatchNodeReimageOptions,
    "deallocate": models._models.BatchNodeDeallocateOptions,
    "disable_scheduling": models._models.BatchNodeDisableSchedulingOptions,
    "node_user": models.BatchNodeUserCreateOptions,
    "node_user_change": models.BatchNodeUserReplaceOptions,
    "upload_logs": models.UploadBatchServiceLogsOptions,
}


def properties(model):
    """Yield the properties of a model, as they stand on the wire, each with the model of what it holds."""
    model.__new__(model)  # It learns the names when it is first made.
    for name, field in model._attr_to_rest_field.items():
        inner = re.search(r"_models\.(\w+)", str(model.__annotations__[name]))
        yield field._rest_name, getattr(models._models, inner[1], None) if inner else None


def check_known(model, names):
    for name, inner in properties(model):
        assert name in names.split(), (model, name)
        if inner and name in INSIDE:
            check_known(inner, INSIDE[name])


@pytest.mark.parametrize("kind", OPTIONS)
def test_all_sdk_properties_are_known(kind):
    assert list(properties(OPTIONS[kind]))
    check_known(OPTIONS[kind], BODIES[kind])


def test_every_body_is_compared_with_the_sdk():
    # The SDK sends a whole task where the service reads its constraints.
    assert set(BODIES) - set(OPTIONS) == {"task_change"}


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/jobs", {"poolInfo": {"poolId": "x"}, "prority": 1}, "prority"),
        ("/jobs", {"poolInfo": {"poolID": "x"}}, "poolID"),
        ("/jobs", {"poolInfo": {"poolId": "x"}, "metadata": [{"name": "a", "value": "1", "type": "s"}]}, "type"),
        ("/pools", {"vmSize": "x", "targetDedicated": 1}, "targetDedicated"),
        ("/pools", {"vmSize": "x", "startTask": {"commandLine": "true", "wait": True}}, "wait"),
        ("/jobs/{job}/tasks", {"commandLine": "true", "outputFiles": [{"pattern": "x"}]}, "pattern"),
        ("/jobs/{job}/addtaskcollection", {"value": [{"id": "a", "commandline": "true"}]}, "commandline"),
        ("/jobs/{job}/terminate", {"reason": "enough"}, "reason"),
    ],
)
def test_unknown_property_is_refused(ask, job_factory, path, body, name):
    job_id = job_factory()
    target = path.format(job=job_id)
    if "value" not in body and "reason" not in body:
        body = {"id": f"{job_id}-x"} | body
    status, answer, _ = ask("POST", f"{target}?{API}", json.dumps(body).encode())
    assert (status, answer["code"]) == (400, "UnsupportedProperty")
    assert answer["values"] == [{"key": "PropertyName", "value": name}]
    assert ask("GET", f"{target}/{job_id}-x?{API}")[0] != 200
    assert ask("GET", f"/jobs/{job_id}?{API}")[1]["state"] == "active"


def test_older_properties_and_annotations_are_accepted(ask, name):
    older = {
        "certificateReferences": [],
        "resourceTags": {"any": "tag"},
        "targetNodeCommunicationMode": "simplified",
        "odata.type": "x",
    }
    body = {"id": name, "vmSize": "x"} | older
    assert ask("POST", "/pools?api-version=2024-02-01.19.0", json.dumps(body).encode())[0] == 201
    assert ask("DELETE", f"/pools/{name}?{API}")[0] == 202
