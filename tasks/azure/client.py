"""Retries, error translation and identity lookup, shared by both Azure clients."""

from __future__ import annotations

import base64
import json
import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import format_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from azure.core.credentials import TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.policies import RetryPolicy

from tasks.azure.error_values import read_error_values
from tasks.azure.transport import (
    TOO_SLOW,
    TRANSIENT_STATUS_CODES,
    Answer,
    CheckedTransport,
    InvalidAnswerError,
)
from tasks.clock import MAX_CLOCK_DIFFERENCE, read_http_date, service_time
from tasks.errors import AlreadyExistsError, ConfigurationError, NotFoundError, ServiceError, TopnError
from tasks.redaction import redact

FIRST_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 90.0
MAX_REQUEST_RETRIES = 8
REQUEST_TIMEOUT_SECONDS = 300

# Connection errors: a pattern for the text, the error code, and the reason for the user. The text itself is not shown
# because it contains the URL of the request, which can include a signature.
CONNECTION_ERRORS = (
    (r"certificate verify failed: ([^(]+)", "CertificateRefused", "its certificate was rejected: {}"),
    (r"Connection refused", "ConnectionRefused", "nothing listens at its address"),
    (r"Failed to resolve|Name or service not known", "HostUnknown", "its host name cannot be resolved"),
    (r"timed out", "TimedOut", "the request timed out"),
    (TOO_SLOW, "TooSlow", f"its answer was {TOO_SLOW}"),
)

INVALID_ANSWER_CODE = "InvalidAnswer"

NO_IDENTITY_CODE = "NoIdentity"

# The error code and first sentence of Microsoft Entra ID.
# Source: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
ENTRA_ERROR = re.compile(r"AADSTS\d+: [^.\n]+")


class TransientRetryPolicy(RetryPolicy[Any, Any]):
    """Retries requests of any method after a transient error.

    The SDK's own policy does not retry a POST after 408, 429 without Retry-After, 502 or a lost response. Retrying is
    safe because each POST creates something under a name that only this run uses. Callers treat "already exists" as
    success if the existing resource belongs to the run.
    """

    def __init__(self) -> None:
        super().__init__(
            retry_total=MAX_REQUEST_RETRIES,
            retry_connect=MAX_REQUEST_RETRIES,
            retry_read=MAX_REQUEST_RETRIES,
            retry_status=MAX_REQUEST_RETRIES,
            timeout=REQUEST_TIMEOUT_SECONDS,
        )

    def configure_retries(self, options: dict[str, Any]) -> dict[str, Any]:
        """Allow retries for every method."""
        settings = super().configure_retries(options)
        settings["methods"] = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})
        return settings

    def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
        """Also retry a rejected request whose signature is too old or too new: the next one has the service's time."""
        return super().is_retry(settings, response) or (
            settings["total"] > 0
            and response.http_response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
            and _has_wrong_date(response.http_request.headers, response.http_response.headers.get("Date"))
        )

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        """Return the delay: it doubles with each retry, and varies by 25% to spread parallel requests."""
        retries = max(len(settings["history"]), 1)
        delay_seconds: float = min(FIRST_BACKOFF_SECONDS * 2 ** (retries - 1), MAX_BACKOFF_SECONDS)
        return delay_seconds * random.uniform(0.75, 1.25)  # noqa: S311 - jitter needs no secure random number


def client_options(
    service: str, retry_policy: TransientRetryPolicy, is_valid: Callable[[Answer], bool]
) -> dict[str, Any]:
    """Return the keyword arguments that both SDK clients share.

    Raises:
        ConfigurationError: A variable names a certificate that cannot be used.
    """
    return {"retry_policy": retry_policy, "transport": CheckedTransport(service, is_valid)}


def sign_with_service_time(request: Any, service: str, header: str) -> None:
    """Set the date that the signature of a request contains. The SDKs take this machine's, and keep it in retries."""
    request.http_request.headers[header] = format_datetime(service_time(service), usegmt=True)


@lru_cache(maxsize=1)
def default_identity() -> TokenCredential:
    """Return the credential that `azure.identity` finds; used only without an account key.

    Raises:
        ConfigurationError: A variable of `azure.identity` is invalid.
    """
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - slow, so imported only if needed

    # It logs many lines of warnings, one per place without a credential. Its error is reported instead.
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
    try:
        return DefaultAzureCredential(transport=CheckedTransport("Entra ID", lambda _: True))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"No identity can be used: {error}. Check the variables that start with AZURE_."
        ) from error


def identity_name(scope: str) -> str:
    """Return the object and tenant id of the identity, or "" if its token for `scope` does not contain them."""
    try:
        claims = default_identity().get_token(scope).token.split(".")[1]
        document = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return f"object {document['oid']} of tenant {document['tid']}"
    except (AzureError, LookupError, ValueError, TypeError):
        return ""


@contextmanager
def translated_errors(service: str, operation: str) -> Iterator[None]:
    """Raise errors of the SDK as errors of topn.

    An answer of the wrong shape makes the SDK, or the code that reads its models, fail with an error of any type.

    Raises:
        NotFoundError: The service responded with 404.
        AlreadyExistsError: The name is already in use.
        ServiceError: Any other error response, no response, or an answer that is not valid.
    """
    try:
        yield
    except TopnError:
        raise
    except AzureError as error:
        raise translate(error, service, operation) from error
    except OSError as error:
        # For example, the file of certificates does not exist.
        message = f"{service} could not {operation}: {redact(str(error))}."
        raise ServiceError(message, service=service, operation=operation) from error
    except Exception as error:
        raise invalid_answer(service, operation) from error


def invalid_answer(service: str, operation: str) -> ServiceError:
    """Return the error for an answer that is not valid."""
    return ServiceError(
        f"{service} could not {operation}: the answer is not valid.",
        service=service,
        operation=operation,
        code=INVALID_ANSWER_CODE,
        transient=True,
    )


def translate(error: AzureError, service: str, operation: str) -> ServiceError:
    """Convert an SDK error to a topn error, by its class, status and code."""
    code, reason = _code_and_reason(error)
    kind: type[ServiceError] = ServiceError
    transient = isinstance(error, (ServiceRequestError, ServiceResponseError))
    if isinstance(error, HttpResponseError):
        transient = (
            error.status_code in TRANSIENT_STATUS_CODES
            or _is_broken(error)
            or "BeingDeleted" in code
            or _is_dated_wrongly(error)
        )
        if isinstance(error, ResourceNotFoundError):
            kind = NotFoundError
        elif isinstance(error, ResourceExistsError) and code.endswith(("Exists", "AlreadyExists")):
            kind = AlreadyExistsError
    return kind(
        f"{service} could not {operation}: {reason}.",
        service=service,
        operation=operation,
        code=code,
        transient=transient,
    )


def _is_dated_wrongly(error: HttpResponseError) -> bool:
    """Check whether a request was rejected because of its date, for example because the machine was suspended."""
    response: Any = error.response
    if error.status_code not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} or response is None:
        return False
    return _has_wrong_date(response.request.headers, response.headers.get("Date"))


def _has_wrong_date(request: Mapping[str, str], date: str | None) -> bool:
    """Check whether the date in a signed request differs much from the date of its response."""
    signed_at = read_http_date(request.get("x-ms-date") or request.get("ocp-date"))
    answered_at = read_http_date(date)
    return signed_at is not None and answered_at is not None and abs(answered_at - signed_at) > MAX_CLOCK_DIFFERENCE


def _code_and_reason(error: AzureError) -> tuple[str, str]:
    """Return the error code and the first line of the message, which is followed only by ids and headers."""
    if isinstance(error, InvalidAnswerError):
        return INVALID_ANSWER_CODE, f"the answer is not valid ({error.message})"
    if isinstance(error, ClientAuthenticationError) and error.response is None:
        found = ENTRA_ERROR.search(str(error))
        return NO_IDENTITY_CODE, found.group() if found else "no identity was found that can get a token for it"
    if isinstance(error, (ServiceRequestError, ServiceResponseError)) or _is_broken(error):
        for pattern, code, reason in CONNECTION_ERRORS:
            if found := re.search(pattern, str(error)):
                return code, f"no response ({reason.format(*(group.strip() for group in found.groups()))})"
        return "", f"no response ({type(error).__name__})"
    details = getattr(error, "error", None)
    code = getattr(error, "error_code", None) or getattr(details, "code", None) or ""
    code = str(getattr(code, "value", code))
    message = redact(_detail(error) or str(error.message or error))
    message = message.split("\n", 1)[0].strip().rstrip(".")
    values = read_error_values((str(each.code), str(each.message)) for each in getattr(details, "details", None) or ())
    message = values.after(message)
    if isinstance(error, HttpResponseError) and error.status_code and not code:
        code = f"HTTP {error.status_code}"
    return code, f"{message} [{code}]" if code and code not in message else message


def _is_broken(error: AzureError) -> bool:
    """Check for an `HttpResponseError` without an error response.

    The SDK raises it for a body that breaks off while it is read, and for a status that does not belong to the request.
    """
    return (
        isinstance(error, HttpResponseError)
        and not isinstance(error, ClientAuthenticationError)
        and (error.status_code or 0) < HTTPStatus.MULTIPLE_CHOICES
    )


def _detail(error: AzureError) -> str | None:
    """Return the detailed reason for a rejected credential, which the message itself does not contain."""
    name = "authenticationerrordetail"
    if detail := (getattr(error, "additional_info", None) or {}).get(name):
        return str(detail)
    details = getattr(getattr(error, "error", None), "details", None) or ()
    return next((str(each.message) for each in details if str(each.code).lower() == name), None)
