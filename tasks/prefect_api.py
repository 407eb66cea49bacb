"""Errors of the user's Prefect server, in words."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

# Prefect rejects a wrong password with 401, and a wrong key of Prefect Cloud with 403.
REJECTED_STATUS_CODES = frozenset({401, 403})
MIN_SERVER_ERROR = 500


def is_from_prefect(error: BaseException) -> bool:
    """Check whether an error, or one of its causes, comes from Prefect's client."""
    return any(type(cause).__module__.partition(".")[0] in {"httpx", "httpcore", "prefect"} for cause in _causes(error))


def describe_prefect_error(error: BaseException, api_url: str | None) -> str:
    """Describe why a request to a Prefect server failed, and what to do.

    Args:
        error: An error of Prefect's client. It may wrap the error of the request.
        api_url: The API URL of the server.
    """
    url = _without_password(api_url or "")
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in REJECTED_STATUS_CODES:
            return (
                f"The Prefect server at {url} rejected the password (HTTP {status}). Set `PREFECT_API_AUTH_STRING`, or "
                "`PREFECT_API_KEY` for Prefect Cloud."
            )
        if status is not None and status >= MIN_SERVER_ERROR:
            return f"The Prefect server at {url} failed (HTTP {status}). See its log, or unset `PREFECT_API_URL`."
        # An answer that is not JSON, or that has other fields.
        if status is not None or isinstance(cause, ValueError):
            reason = "its answer is not JSON of Prefect" if status is None else f"HTTP {status}"
            return (
                f"{url} is not the API of a Prefect server ({reason}). Correct `PREFECT_API_URL`, which usually ends "
                "in /api, or unset it."
            )
    return f"The Prefect server at {url} does not respond. Start it, or unset `PREFECT_API_URL`."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
