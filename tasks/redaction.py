"""Redaction of secrets in logs and messages: signatures in URLs, tokens, passwords and account keys.

topn itself logs no secrets. Libraries may log a request, a service may quote one, and an exception may contain a URL.
"""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import quote

from tasks.text import printable, printable_lines

HIDDEN = "[hidden]"

# A shorter text is not a key, and would occur in many messages.
MIN_KEY_LENGTH = 8

# The text before a secret, and the secret. In this order: `sig` of a shared access signature, plain, encoded or in JSON;
# keys of connection strings; schemes of the Authorization header; and the user in a URL with a password.
_SECRETS = re.compile(
    r"""(?ix)
    (
        (?<![a-z]) sig (?: = | %3d | %253d | \\u003d | ["']\s*:\s*["'] )
        | \b (?: SharedAccessSignature | AccountKey ) \s*=
        | \b SharedKey (?:Lite)? \s+ [\w.-]+ :
        | \b Bearer \s+
        | \b authorization ["']? \s* [:=,] \s* ["']? Basic \s+
        | :// [^/\s:@]* : (?= [^/\s@]+ @ )
    )
    (?: (?<= :) [^/\s@]+ (?= @) | [\w+/=%.~-]{8,} )
    """
)

_keys: set[str] = set()


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an error in one line, with secrets hidden and no full stop at the end."""
    return printable(redact(f"{type(error).__name__}: {error}".rstrip(": .")))


def redact(text: str) -> str:
    """Return a text with its secrets replaced by `HIDDEN`."""
    # Iterate over a copy, since another thread may add a key.
    for key in tuple(_keys):
        text = text.replace(key, HIDDEN)
    return _SECRETS.sub(rf"\g<1>{HIDDEN}", text)


def protect(*keys: str) -> None:
    """Redact these keys, and all signatures and tokens, in every log record of this process from now on.

    Control characters in records are escaped as well, because handlers write to terminals. This replaces the log record
    factory, which creates the records of all loggers. A filter applies to one logger only.
    """
    _keys.update(form for key in keys if len(key) >= MIN_KEY_LENGTH for form in (key, quote(key, safe="")))
    if not isinstance(logging.getLogRecordFactory(), _RedactingFactory):
        logging.setLogRecordFactory(_RedactingFactory(logging.getLogRecordFactory()))


class _RedactingFactory:
    """Log record factory that wraps another one, and makes the messages and tracebacks of its records safe."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        self._formatter = logging.Formatter()

    def __call__(self, *args: Any, **options: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._factory(*args, **options)
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - logging itself reports a message that does not match its arguments
            return record
        if (safe := printable_lines(redact(message))) != message:
            record.msg, record.args = safe, ()
        if record.exc_info:
            trace = self._formatter.formatException(record.exc_info)
            if (safe := printable_lines(redact(trace))) != trace:
                # A handler may ignore `exc_text` and format `exc_info` again. A filter may need the error.
                record.__dict__["error"] = record.exc_info[1]
                record.exc_info, record.exc_text = None, safe
        return record
