"""What both Azure adapters share: one retry policy, one translation of errors, one way to find an identity."""

from __future__ import annotations

import base64
import json
import logging
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
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
from azure.core.pipeline.transport import RequestsTransport
from requests import Session
from requests.adapters import HTTPAdapter

from tasks.errors import AlreadyExistsError, NotFoundError, ServiceError
from tasks.redaction import redacted

FIRST_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 90.0
REQUEST_RETRIES = 8
REQUEST_TIMEOUT_SECONDS = 300
CONNECTION_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60

# More than a flow has threads; the SDK's own transport keeps ten, and makes each further one anew.
MAX_CONNECTIONS = 32

# Source: azure-core's RetryPolicyBase, and the Batch documentation "Error handling and detection in Azure Batch".
TRANSIENT_STATUS_CODES = frozenset({408, 429, 500, 502, 503, 504})

# What the text of an error says where there was no answer: our code for it, and the words; the text itself holds the
# URL of the request, which may end in a signature.
NO_ANSWER = (
    (r"certificate verify failed: ([^(]+)", "CertificateRefused", "its certificate is refused: {}"),
    (r"Connection refused", "ConnectionRefused", "nothing listens at its address"),
    (r"Failed to resolve|Name or service not known", "HostUnknown", "the name of its host is not known"),
    (r"timed out", "TimedOut", "not in time"),
)

NO_IDENTITY = "NoIdentity"

# What Microsoft Entra ID itself says of a sign-in that it refuses.
ENTRA_REFUSAL = re.compile(r"AADSTS\d+: [^.\n]+")


class TransientRetryPolicy(RetryPolicy[Any, Any]):
    """Repeat a request that failed for a passing reason, whatever its method.

    The SDK's own policy does not repeat a POST after 408, 429 without Retry-After, 502 or a lost reply. Here every
    POST may be repeated, since each request creates something under a name that this run alone uses, and the callers
    take "exists" for done when what exists is theirs.
    """

    def __init__(self) -> None:
        super().__init__(
            retry_total=REQUEST_RETRIES,
            retry_connect=REQUEST_RETRIES,
            retry_read=REQUEST_RETRIES,
            retry_status=REQUEST_RETRIES,
            timeout=REQUEST_TIMEOUT_SECONDS,
        )

    def configure_retries(self, options: dict[str, Any]) -> dict[str, Any]:
        """Let every method be repeated."""
        settings = super().configure_retries(options)
        settings["methods"] = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})
        return settings

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        """Double the delay each time, and spread it by a quarter, so that parallel requests do not return together."""
        repeats = max(len(settings["history"]), 1)
        delay_seconds: float = min(FIRST_BACKOFF_SECONDS * 2 ** (repeats - 1), MAX_BACKOFF_SECONDS)
        return delay_seconds * random.uniform(0.75, 1.25)  # noqa: S311 - spreading load needs no secure random number


def client_options(retry_policy: TransientRetryPolicy) -> dict[str, Any]:
    """Keyword arguments that both SDK clients are made with."""
    session = Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
    return {
        "retry_policy": retry_policy,
        "transport": RequestsTransport(
            session=session, connection_timeout=CONNECTION_TIMEOUT_SECONDS, read_timeout=READ_TIMEOUT_SECONDS
        ),
    }


@lru_cache(maxsize=1)
def default_identity() -> TokenCredential:
    """Find an identity as Azure's own tools do; asked only where no account key is set."""
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - imported only where it is needed: it is slow

    # It warns of each place where it finds none, in many lines; the error that it raises then is told instead.
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
    return DefaultAzureCredential()


def identity_name(scope: str) -> str:
    """Say whose token the identity has for a scope; "" where it has none, or one that does not say."""
    try:
        claims = default_identity().get_token(scope).token.split(".")[1]
        document = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return f"object {document['oid']} of tenant {document['tid']}"
    except (AzureError, LookupError, ValueError, TypeError):
        return ""


@contextmanager
def translated_errors(service: str, operation: str) -> Iterator[None]:
    """Raise the SDK's errors as ours.

    Raises:
        NotFoundError: The service answered 404.
        AlreadyExistsError: The service answered that a name is taken.
        ServiceError: Any other refusal, or no answer.
    """
    try:
        yield
    except AzureError as error:
        raise translate(error, service, operation) from error


def translate(error: AzureError, service: str, operation: str) -> ServiceError:
    """Make our error of an SDK error: by its class first, then by status and code."""
    code, reason = _code_and_reason(error)
    kind: type[ServiceError] = ServiceError
    transient = isinstance(error, (ServiceRequestError, ServiceResponseError))
    if isinstance(error, HttpResponseError):
        transient = (
            error.status_code in TRANSIENT_STATUS_CODES
            or "BeingDeleted" in code
            or (code == "AuthenticationFailed" and _was_held_up(error))
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


def _was_held_up(error: HttpResponseError) -> bool:
    """Whether the signature of a request was old when its response came, as after a night in which the machine slept."""
    request = getattr(error.response, "request", None)
    headers: Mapping[str, str] = getattr(request, "headers", {})
    signed_at = headers.get("x-ms-date") or headers.get("ocp-date")
    if signed_at is None:
        return False
    age = datetime.now(timezone.utc) - parsedate_to_datetime(signed_at)
    return age.total_seconds() > REQUEST_TIMEOUT_SECONDS


def _code_and_reason(error: AzureError) -> tuple[str, str]:
    """Take the service's code and its first sentence, or what it says of a credential; the rest is ids and headers."""
    if isinstance(error, (ServiceRequestError, ServiceResponseError)):
        for pattern, code, words in NO_ANSWER:
            if found := re.search(pattern, str(error)):
                return code, f"no answer ({words.format(*(group.strip() for group in found.groups()))})"
        return "", f"no answer ({type(error).__name__})"
    if isinstance(error, ClientAuthenticationError) and error.response is None:
        refusal = ENTRA_REFUSAL.search(str(error))
        return NO_IDENTITY, refusal.group() if refusal else "no identity was found that has a token for it"
    details = getattr(error, "error", None)
    code = getattr(error, "error_code", None) or getattr(details, "code", None) or ""
    code = str(getattr(code, "value", code))
    message = redacted(_detail(error) or str(error.message or error))
    message = message.split("\n", 1)[0].strip().rstrip(".")
    if isinstance(error, HttpResponseError) and error.status_code and not code:
        code = f"HTTP {error.status_code}"
    return code, f"{message} [{code}]" if code and code not in message else message


def _detail(error: AzureError) -> str | None:
    """Find why a service does not take a credential; its sentence says only that it does not."""
    name = "authenticationerrordetail"
    if said := (getattr(error, "additional_info", None) or {}).get(name):
        return str(said)
    details = getattr(getattr(error, "error", None), "details", None) or ()
    return next((str(each.message) for each in details if str(each.code).lower() == name), None)
