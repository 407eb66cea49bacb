"""Rules for all requests: authentication, headers, and operations that are not served."""

import base64
import json
from datetime import datetime, timedelta, timezone

import pytest
from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError

from localbatch.api import auth
from localbatch.api.routes import ROUTES
from localbatch.testing import MACHINE, MACHINE_JSON, wait_until
from localbatch.wire import http_date

VERSION = "api-version=2025-06-01"


@pytest.mark.parametrize("options", [{"key": base64.b64encode(b"wrong").decode()}, {"account": "other"}])
def test_another_key_is_refused(ask, options):
    status, body, _ = ask("GET", f"/pools?{VERSION}", **options)
    assert (status, body["code"]) == (403, "AuthenticationFailed")
    assert body["message"]["lang"] == "en-US"


def test_sdk_with_another_key_is_refused(local_azure, refuses):
    credential = AzureNamedKeyCredential(local_azure.account, base64.b64encode(b"wrong").decode())
    with BatchClient(local_azure.endpoint, credential) as client:
        refuses(403, "AuthenticationFailed", lambda: list(client.list_pools()))


@pytest.mark.parametrize(("minutes", "status"), [(-16, 403), (-14, 200), (14, 200), (16, 403)])
def test_request_is_valid_for_15_minutes(ask, minutes, status):
    assert ask("GET", f"/pools?{VERSION}", sent_at=datetime.now(timezone.utc) + timedelta(minutes=minutes))[0] == status


@pytest.mark.parametrize("header", ["Bearer token", "SharedKey nothing", "SharedKey"])
def test_malformed_authorization_has_its_code(ask, header):
    status, body, _ = ask("GET", f"/pools?{VERSION}", authorization=header)
    assert (status, body["code"]) == (400, "InvalidAuthenticationInfo")


def test_authorization_and_date_are_required(ask):
    assert ask("GET", f"/pools?{VERSION}", authorization="")[0] == 403
    assert ask("GET", f"/pools?{VERSION}", ocp_date="yesterday")[0] == 403


def test_path_encoded_after_signing_is_accepted(ask):
    target = f"/jobs/j/tasks/t/files/a(1).txt?{VERSION}"
    status, body, _ = ask("GET", target, path_signed="/jobs/j/tasks/t/files/a%281%29.txt")
    assert (status, body["code"]) == (404, "JobNotFound")


def test_clients_for_dotnet_and_java_are_understood(local_azure, ask, job_factory):
    """They sign lower-case names of parameters, and an empty Content-Length for POST without a body."""
    target, now = f"/jobs/{job_factory()}/terminate", http_date(datetime.now(timezone.utc))
    resource = f"/{local_azure.account}{target}\napi-version:2025-06-01\ntimeout:30"
    signature = auth.sign(local_azure.key, f"POST{12 * chr(10)}ocp-date:{now}\n{resource}")
    headers = {"authorization": f"SharedKey {local_azure.account}:{signature}", "ocp_date": now, "content_type": ""}
    assert ask("POST", f"{target}?{VERSION}&timeOut=30", b"", **headers)[0] == 202


@pytest.mark.parametrize("version", ["2022-01-01.15.0", "2024-07-01.20.0", "2025-06-01", "2030-01-01"])
def test_every_version_since_2022_is_spoken(ask, version):
    assert ask("GET", f"/pools?api-version={version}&timeout=30")[0] == 200


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/pools", "MissingRequiredQueryParameter"),
        ("/pools?api-version=2019-08-01.10.0", "UnsupportedRequestVersion"),
        ("/pools?api-version=soon", "UnsupportedRequestVersion"),
        (f"/nothing?{VERSION}", "InvalidUri"),
        (f"/pools?{VERSION}&$skiptoken=x", "InvalidQueryParameterValue"),
    ],
)
def test_requests_that_mean_nothing_are_refused(ask, target, code):
    status, body, _ = ask("GET", target)
    assert (status, body["code"]) == (400, code)


def test_unsupported_verb_is_refused(ask):
    status, body, _ = ask("PUT", f"/pools?{VERSION}", b"{}")
    assert (status, body["code"]) == (405, "UnsupportedHttpVerb")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_body_must_be_an_object(ask, body):
    status, answer, _ = ask("POST", f"/pools?{VERSION}", body)
    assert (status, answer["code"]) == (400, "InvalidRequestBody")


def test_other_clients_are_understood_too(ask, name):
    body = json.dumps({"id": name, **MACHINE_JSON, "targetDedicatedNodes": "0"}).encode()
    assert ask("POST", f"/pools?{VERSION}&timeout=30", body)[0] == 201
    body = json.dumps({"id": name, "poolInfo": {"poolId": name}}).encode()
    assert ask("POST", f"/jobs?{VERSION}", body)[0] == 201
    assert ask("POST", f"/jobs/{name}/terminate?{VERSION}", b"")[0] == 202
    assert ask("DELETE", f"/jobs/{name}?{VERSION}")[0] == 202
    assert ask("DELETE", f"/pools/{name}?{VERSION}", content_length="0")[0] == 202


def test_responses_have_the_service_headers(ask):
    options = {"client_request_id": "mine", "return_client_request_id": "true"}
    _, body, headers = ask("GET", f"/pools?{VERSION}", **options)
    assert headers["Content-Type"] == "application/json;odata=minimalmetadata"
    assert (headers["DataServiceVersion"], headers["client-request-id"]) == ("3.0", "mine")
    assert headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["request-id"]
    assert body["odata.metadata"].endswith("/$metadata#pools")


def test_job_has_the_recorded_location(ask, name):
    """As recorded in `test_batch_jobs` of azure-sdk-for-python."""
    body = json.dumps({"id": name, "poolInfo": {"poolId": name}}).encode()
    status, _, headers = ask("POST", f"/jobs?{VERSION}", body)
    assert (status, headers["Location"]) == (201, headers["DataServiceId"])
    assert headers["Location"].endswith("/jobs/job-1")


def test_failed_head_has_no_body(ask, name):
    assert ask("HEAD", f"/pools/{name}?{VERSION}")[:2] == (404, None)


UNSERVED = [route for route in ROUTES if not route.handler]


@pytest.mark.parametrize("route", UNSERVED, ids=[route.operation for route in UNSERVED])
def test_unserved_operation_is_named(ask, route):
    path = route.path.replace("{", "").replace("}", "")
    status, body, _ = ask(route.method, f"{path}?{VERSION}")
    assert status == 501
    if route.method != "HEAD":
        assert body["code"] == "NotImplemented"
        assert body["values"] == [{"key": "OperationName", "value": route.operation}]


def test_every_request_is_recorded(client, name, local_azure):
    with pytest.raises(HttpResponseError):
        client.get_job(name)
    record = wait_until(lambda: next((record for record in local_azure.batch.requests if name in record.path), None))
    assert (record.operation, record.method, record.status) == ("get_job", "GET", 404)
    assert record.started_at <= record.ended_at
    assert record.bytes > 0


def test_invalid_id_creates_nothing(client, refuses):
    error = refuses(400, "InvalidPropertyValue", client.create_pool, models.BatchPoolCreateOptions(id="a.b", **MACHINE))
    details = {detail.code: detail.message for detail in error.error.details}
    assert (details["PropertyName"], details["PropertyValue"]) == ("id", "a.b")
