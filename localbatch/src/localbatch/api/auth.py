"""Authentication with the key of the account: the SharedKey scheme, and a password for the fault script.

https://learn.microsoft.com/rest/api/batchservice/authenticate-requests-to-the-azure-batch-service

The string to sign is that of the official clients.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from urllib.parse import parse_qs, quote, unquote

from localbatch import errors
from localbatch.wire import read_http_date

MAX_CLOCK_SKEW = timedelta(minutes=15)
# In the order of the string to sign.
_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)


def string_to_sign(
    account: str, method: str, path: str, query: str, headers: Mapping[str, str], *, as_dotnet: bool = False
) -> str:
    """Return the text that client and service sign.

    Args:
        account: The name of the account.
        method: The HTTP method.
        path: Percent-encoded, as received.
        query: Percent-encoded, as received.
        headers: By names in lower case.
        as_dotnet: Whether to sign as the clients for .NET and Java, which put the names of query parameters in lower case
            and sign an empty Content-Length for a request without a body.
    """
    # If there are both dates, ocp-date counts, and Date is signed as an empty line.
    signed = {**headers, "date": ""} if "ocp-date" in headers else headers
    if as_dotnet and signed.get("content-length") == "0":
        signed = {**signed, "content-length": ""}
    lines = [method, *(signed.get(name, "") for name in _SIGNED_HEADERS)]
    # Canonicalized headers, then the canonicalized resource with its sorted query.
    lines += [f"{name}:{value}" for name, value in sorted(headers.items()) if name.startswith("ocp-")]
    lines.append(f"/{account}{path}")
    parameters = {name.lower() if as_dotnet else name: values[0] for name, values in parse_qs(query).items()}
    lines += [f"{name}:{value}" for name, value in sorted(parameters.items())]
    return "\n".join(lines)


def sign(key: str, text: str) -> str:
    """Return the signature of a text with the key of an account."""
    return base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)).decode()


def verify(
    account: str,
    key: str,
    *,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    clocks: Collection[datetime],
) -> None:
    """Check that a request was signed recently, by one of the clocks, with the key of the account.

    Raises:
        ServiceError: AuthenticationFailed, or InvalidAuthenticationInfo if the header is malformed.
    """
    # SharedKey <account>:<signature>
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if not scheme:
        raise errors.authentication_failed(AuthenticationErrorDetail="The Authorization header is missing")
    name, _, signature = credential.partition(":")
    if scheme != "SharedKey" or not name or not signature:
        raise errors.invalid_authentication_info(Reason="The header must be SharedKey <account>:<signature>")
    try:
        sent_at = read_http_date(headers.get("ocp-date") or headers["date"])
    except (KeyError, ValueError):
        raise errors.authentication_failed(
            AuthenticationErrorDetail="The ocp-date header is missing or is not a date"
        ) from None
    if name != account:
        raise errors.authentication_failed(
            AuthenticationErrorDetail="Cannot find the claimed account when trying to GetProperties for the account "
            f"{name}."
        )
    # An old date would allow replaying recorded requests.
    if all(abs(now - sent_at) > MAX_CLOCK_SKEW for now in clocks):
        raise errors.authentication_failed(AuthenticationErrorDetail="The date is more than 15 minutes off")
    # Some HTTP clients encode the path again after signing it. They sign the fully encoded path.
    encoded = "/".join(quote(unquote(segment), safe="") for segment in path.split("/"))
    expected = (
        sign(key, string_to_sign(account, method, each, query, headers, as_dotnet=as_dotnet))
        for as_dotnet in (False, True)
        for each in (path, encoded)
    )
    if not any(hmac.compare_digest(signature, each) for each in expected):
        raise errors.authentication_failed(AuthenticationErrorDetail="The signature does not match")


def password_header(account: str, key: str) -> str:
    """Return the Authorization header that contains the account and its key (RFC 7617), as `curl --user` sends it."""
    return f"Basic {base64.b64encode(f'{account}:{key}'.encode()).decode()}"


def verify_password(account: str, key: str, headers: Mapping[str, str]) -> bool:
    """Check that a request contains the account and its key."""
    sent, expected = headers.get("authorization", ""), password_header(account, key)
    return hmac.compare_digest(sent.encode(), expected.encode())
