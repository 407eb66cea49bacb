"""The additional information of an error, which Batch sends in `values` beside the code and the message.

A failed allocation has the error of the provider of the virtual machines there, as JSON.
Source of an example: https://github.com/microsoft/ga4gh-tes/issues/43
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.redaction import redact
from tasks.text import shorten

# Values that repeat others, or do not help.
IGNORED = frozenset({"authenticationerrordetail", "provider error json truncated"})

# The reason of a refused property can have two sentences. Longer values are documents.
MAX_VALUE_LENGTH = 400


@dataclass(frozen=True, kw_only=True)
class ErrorValues:
    """The additional information of an error.

    Attributes:
        text: All of it in one line, without secrets: "PropertyName: id; Reason: …". Empty if there is none.
        provider_code: The code of the provider's error, or an empty text.
    """

    text: str
    provider_code: str

    def after(self, message: str) -> str:
        """Return a message with the additional information in brackets behind it."""
        return f"{message} ({self.text})" if self.text else message


def read_error_values(values: Iterable[tuple[str | None, str | None]]) -> ErrorValues:
    """Return the additional information of an error, given as names and texts."""
    parts: list[str] = []
    provider_code = ""
    for name, value in values:
        if not name or not value or name.lower() in IGNORED:
            continue
        code, message = _provider_error(value)
        provider_code = provider_code or code
        text = f"{message.rstrip('.')} [{code}]" if code else f"{name}: {value}"
        parts.append(shorten(" ".join(redact(text).split()), MAX_VALUE_LENGTH).rstrip("."))
    return ErrorValues(text="; ".join(parts), provider_code=provider_code)


def _provider_error(value: str) -> tuple[str, str]:
    """Return code and message of an error in JSON; two empty texts if the value is something else."""
    try:
        error = json.loads(value)["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return "", ""
