"""Errors of the SDK, told in our words, and how long requests are repeated."""

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
    # Made by the SDK of a response alone.
    and not issubclass(error, (sdk.ODataV4Error, sdk.TooManyRedirectsError, sdk.StreamConsumedError))
    and error not in {sdk.StreamClosedError, sdk.ResponseNotReadError}
]


def an_error(kind, status, code):
    error = kind(message="The sentence.\nRequestId:1")
    error.status_code = status
    error.error = SimpleNamespace(code=code)
    return error


@pytest.mark.parametrize("kind", SDK_ERRORS)
def test_every_error_of_the_sdk_has_a_translation(kind):
    assert isinstance(translate(kind("why"), "Batch", "do it"), TopnError)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_statuses_are_transient(status):
    assert translate(an_error(sdk.HttpResponseError, status, "X"), "Batch", "do it").transient


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413])
def test_other_statuses_are_not(status):
    assert not translate(an_error(sdk.HttpResponseError, status, "X"), "Batch", "do it").transient


@pytest.mark.parametrize("header", ["x-ms-date", "ocp-date"])
@pytest.mark.parametrize(("hours", "transient"), [(0, False), (8, True)])
def test_refused_date_of_an_old_request_is_transient(header, hours, transient):
    """A machine that slept sends a request long after it was signed; the next one has a new date."""
    error = an_error(sdk.ClientAuthenticationError, 403, "AuthenticationFailed")
    signed_at = format_datetime(datetime.now(timezone.utc) - timedelta(hours=hours), usegmt=True)
    error.response = SimpleNamespace(request=SimpleNamespace(headers={header: signed_at}))
    assert translate(error, "Batch", "do it").transient is transient


def test_a_lost_connection_is_transient_and_its_address_is_not_told():
    error = translate(sdk.ServiceRequestError("host/x?sig=SECRET refused"), "Storage", "upload a")
    assert error.transient
    assert "SECRET" not in str(error)


def test_only_the_first_sentence_and_the_code_are_told():
    error = translate(an_error(sdk.HttpResponseError, 403, "AuthenticationFailed"), "Batch", "create pool p")
    assert str(error) == "Batch could not create pool p: The sentence [AuthenticationFailed]."


def test_not_found_and_exists_are_told_apart_from_other_conflicts():
    assert isinstance(translate(an_error(sdk.ResourceNotFoundError, 404, "JobNotFound"), "Batch", "x"), NotFoundError)
    assert isinstance(translate(an_error(sdk.ResourceExistsError, 409, "JobExists"), "Batch", "x"), AlreadyExistsError)
    other = translate(an_error(sdk.ResourceExistsError, 409, "JobCompleted"), "Batch", "x")
    assert type(other) is ServiceError


def test_a_name_that_is_still_being_deleted_may_be_free_later():
    assert translate(an_error(sdk.ResourceExistsError, 409, "ContainerBeingDeleted"), "Storage", "x").transient


def test_delays_double_within_a_quarter_and_are_bounded():
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
        ("url: /?sig=SECRET (Failed to resolve 'x')", "HostUnknown", "not known"),
        ("url: /?sig=SECRET (Read timed out.)", "TimedOut", "not in time"),
    ],
)  # fmt: skip
def test_why_there_was_no_answer_is_told_and_no_signature(text, code, words):
    error = translate(sdk.ServiceRequestError(text), "Batch", "list the pools")
    assert (error.code, error.transient) == (code, True)
    assert words in str(error)
    assert "SECRET" not in str(error)


def test_what_entra_id_says_of_a_sign_in_is_told():
    text = "DefaultAzureCredential failed.\nAttempted credentials:\n\tX: AADSTS90002: Tenant 'x' not found. Check."
    error = translate(sdk.ClientAuthenticationError(text), "Batch", "list the pools")
    assert (error.code, error.transient) == ("NoIdentity", False)
    assert str(error) == "Batch could not list the pools: AADSTS90002: Tenant 'x' not found."
