"""Translation of SDK errors, and the delays between request retries."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from types import SimpleNamespace

import azure.core.exceptions as sdk
import pytest

from tasks.azure.client import MAX_BACKOFF_SECONDS, TransientRetryPolicy, translate
from tasks.errors import AlreadyExistsError, NotFoundError, ServiceError, TopnError

SDK_ERRORS = [
    error
    for error in vars(sdk).values()
    if isinstance(error, type)
    and issubclass(error, sdk.AzureError)
    # The SDK creates these only from a response.
    and not issubclass(error, (sdk.ODataV4Error, sdk.TooManyRedirectsError, sdk.StreamConsumedError))
    and error not in {sdk.StreamClosedError, sdk.ResponseNotReadError}
]


def make_error(kind, status, code):
    error = kind(message="The sentence.\nRequestId:1")
    error.status_code = status
    error.error = SimpleNamespace(code=code)
    return error


@pytest.mark.parametrize("kind", SDK_ERRORS)
def test_every_sdk_error_is_translated(kind):
    assert isinstance(translate(kind("why"), "Batch", "do it"), TopnError)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_retryable_statuses_are_transient(status):
    assert translate(make_error(sdk.HttpResponseError, status, "X"), "Batch", "do it").transient


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413])
def test_other_statuses_are_permanent(status):
    assert not translate(make_error(sdk.HttpResponseError, status, "X"), "Batch", "do it").transient


@pytest.mark.parametrize("header", ["x-ms-date", "ocp-date"])
@pytest.mark.parametrize(("hours", "transient"), [(0, False), (8, True)])
def test_rejected_date_of_old_request_is_transient(header, hours, transient):
    """A machine that slept sends a request long after signing it; a retry has a new date."""
    error = make_error(sdk.ClientAuthenticationError, 403, "AuthenticationFailed")
    now = datetime.now(timezone.utc)
    signed_at = format_datetime(now - timedelta(hours=hours), usegmt=True)
    headers = {"Date": format_datetime(now, usegmt=True)}
    error.response = SimpleNamespace(request=SimpleNamespace(headers={header: signed_at}), headers=headers)
    assert translate(error, "Batch", "do it").transient is transient


def test_lost_connection_is_transient_and_hides_address():
    error = translate(sdk.ServiceRequestError("host/x?sig=SECRET refused"), "Storage", "upload a")
    assert error.transient
    assert "SECRET" not in str(error)


def test_message_has_first_sentence_and_code():
    error = translate(make_error(sdk.HttpResponseError, 403, "AuthenticationFailed"), "Batch", "create pool p")
    assert str(error) == "Batch could not create pool p: The sentence [AuthenticationFailed]."


def test_not_found_and_exists_have_own_errors():
    assert isinstance(translate(make_error(sdk.ResourceNotFoundError, 404, "JobNotFound"), "Batch", "x"), NotFoundError)
    assert isinstance(
        translate(make_error(sdk.ResourceExistsError, 409, "JobExists"), "Batch", "x"), AlreadyExistsError
    )
    other = translate(make_error(sdk.ResourceExistsError, 409, "JobCompleted"), "Batch", "x")
    assert type(other) is ServiceError


def test_name_under_deletion_is_transient():
    assert translate(make_error(sdk.ResourceExistsError, 409, "ContainerBeingDeleted"), "Storage", "x").transient


def test_delays_double_with_jitter_up_to_maximum():
    policy = TransientRetryPolicy()
    for repeats, expected in [(1, 0.25), (2, 0.5), (5, 4.0), (30, MAX_BACKOFF_SECONDS)]:
        delay = policy.get_backoff_time({"history": [None] * repeats})
        assert 0.75 * expected <= delay <= 1.25 * expected


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("url: /?sig=SECRET ([SSL] certificate verify failed: certificate has expired (_ssl.c:1))", "CertificateRefused",
         "certificate has expired"),
        ("url: /?sig=SECRET ([Errno 111] Connection refused)", "ConnectionRefused", "nothing listens"),
        ("url: /?sig=SECRET (Failed to resolve 'x')", "HostUnknown", "cannot be resolved"),
        ("url: /?sig=SECRET (Read timed out.)", "TimedOut", "timed out"),
    ],
)  # fmt: skip
def test_connection_error_names_cause_without_signature(text, code, words):
    error = translate(sdk.ServiceRequestError(text), "Batch", "list the pools")
    assert (error.code, error.transient) == (code, True)
    assert words in str(error)
    assert "SECRET" not in str(error)


def test_sign_in_error_quotes_entra_id():
    text = "DefaultAzureCredential failed.\nAttempted credentials:\n\tX: AADSTS90002: Tenant 'x' not found. Check."
    error = translate(sdk.ClientAuthenticationError(text), "Batch", "list the pools")
    assert (error.code, error.transient) == ("NoIdentity", False)
    assert str(error) == "Batch could not list the pools: AADSTS90002: Tenant 'x' not found."
