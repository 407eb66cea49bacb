"""Request bodies of other clients, and invalid bodies."""

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_bench import Bench

from localbatch.api import request_bodies
from localbatch.errors import ServiceError

COMMAND = {
    "commandLine": "true",
    "environmentSettings": [{"name": "A", "value": "1"}],
    "resourceFiles": [{"httpUrl": "http://x/y", "filePath": "y", "fileMode": "0755"}],
    "outputFiles": [
        {
            "filePattern": "*",
            "destination": {"container": {"containerUrl": "http://c", "path": "p"}},
            "uploadOptions": {"uploadCondition": "taskCompletion"},
        }
    ],
    "constraints": {"maxWallClockTime": "PT1H", "retentionTime": "P1D", "maxTaskRetryCount": 1},
}
POOL = {
    "id": "p",
    "vmSize": "x",
    "taskSlotsPerNode": 2,
    "resizeTimeout": "PT10M",
    "taskSchedulingPolicy": {"nodeFillType": "Pack"},
    "virtualMachineConfiguration": {"imageReference": {"publisher": "p"}},
    "startTask": COMMAND | {"waitForSuccess": True, "maxTaskRetryCount": 1},
    "userAccounts": [{"name": "u", "password": "secret"}],
    "metadata": [{"name": "a", "value": "1"}],
}
JOB = {
    "id": "j",
    "priority": 1,
    "poolInfo": {"autoPoolSpecification": {"poolLifetimeOption": "job", "autoPoolIdPrefix": "a", "pool": POOL}},
    "jobManagerTask": COMMAND | {"id": "jm", "requiredSlots": 1, "runExclusive": True},
    "jobPreparationTask": COMMAND | {"waitForSuccess": True},
    "jobReleaseTask": COMMAND | {"maxWallClockTime": "PT1M"},
    "commonEnvironmentSettings": [{"name": "A", "value": "1"}],
    "constraints": {"maxWallClockTime": "PT1H", "maxTaskRetryCount": 1},
    "usesTaskDependencies": True,
    "onTaskFailure": "performExitOptionsJobAction",
}
OPTIONS = {"jobAction": "none", "dependencyAction": "satisfy"}
TASK = COMMAND | {
    "id": "t",
    "requiredSlots": 1,
    "affinityInfo": {"affinityId": "TVM:x"},
    "dependsOn": {"taskIds": ["a"], "taskIdRanges": [{"start": 1, "end": 2}]},
    "exitConditions": {
        "exitCodes": [{"code": 1, "exitOptions": OPTIONS}],
        "exitCodeRanges": [{"start": 2, "end": 3, "exitOptions": OPTIONS}],
        "default": OPTIONS,
    },
}


def make_job():
    return Bench().job(usesTaskDependencies=True, onTaskFailure="performexitoptionsjobaction")


READERS = {
    "pool": (POOL, request_bodies.pool_spec),
    "patch": (POOL, lambda body: request_bodies.pool_patch(body, Bench().pool())),
    "job": (JOB, request_bodies.job_spec),
    "replacement": (JOB, lambda body: request_bodies.job_replacement(body, make_job())),
    "task": (TASK, lambda body: request_bodies.task_spec(body, make_job())),
}


def paths(value, path=()):
    """Every place in a body."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from paths(child, (*path, key))


WRONG = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.booleans(),
    st.just([]),
    st.just({}),
    st.just([1]),
)


@pytest.mark.parametrize("name", READERS)
@given(data=st.data(), value=WRONG)
def test_any_body_is_read_or_refused(name, data, value):
    body, read = READERS[name]
    path = data.draw(st.sampled_from(list(paths(body))))
    body = copy.deepcopy(body)
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with contextlib.suppress(ServiceError):
        read(body)


@pytest.mark.parametrize("name", ["pool", "job", "task"])
def test_full_body_is_read(name):
    body, read = READERS[name]
    assert read(copy.deepcopy(body)).items() >= {"metadata": body["metadata"]}.items() if name == "pool" else read(body)


def test_numbers_and_booleans_may_be_strings():
    spec = request_bodies.pool_spec(
        {"id": "p", "vmSize": "X", "taskSlotsPerNode": "4", "enableInterNodeCommunication": "True"}
    )
    assert (spec["vmSize"], spec["taskSlotsPerNode"], spec["enableInterNodeCommunication"]) == ("x", 4, True)


def test_passwords_are_not_kept():
    assert "secret" not in str(request_bodies.pool_spec(POOL))
    assert "secret" not in str(request_bodies.job_spec(JOB))


def test_reading_is_idempotent():
    info = request_bodies.pool_info(JOB)
    assert request_bodies.pool_info({"poolInfo": info}) == info
