"""Keep secrets out of what is written down: signatures that URLs end in, tokens, and the account keys.

Nothing here writes a secret on purpose. This is for what others say: a library that logs a request, a service that quotes
one, an exception that has a URL in its text.
"""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import quote

HIDDEN = "[hidden]"

# What is shorter is no key of anything, and would be found everywhere.
MIN_LETTERS = 8

# What comes right before a secret: `sig` of a shared access signature, also encoded or as a member of JSON, the schemes
# of headers and connection strings, and the user of a URL with a password.
_SECRETS = re.compile(
    r"""(?ix)
    (
        (?<![a-z]) sig (?: = | %3d | %253d | \\u003d | ["']\s*:\s*["'] )
        | \b (?: SharedAccessSignature | AccountKey ) \s*=
        | \b SharedKey (?:Lite)? \s+ [\w.-]+ :
        | \b Bearer \s+
        | :// [^/\s:@]* : (?= [^/\s@]+ @ )
    )
    (?: (?<= :) [^/\s@]+ (?= @) | [\w+/=%.~-]{8,} )
    """
)

_keys: set[str] = set()


def redacted(text: str) -> str:
    """Give a text without the secrets in it."""
    # A copy, since another thread may add a key.
    for key in tuple(_keys):
        text = text.replace(key, HIDDEN)
    return _SECRETS.sub(rf"\g<1>{HIDDEN}", text)


def protect(*keys: str) -> None:
    """Keep these keys, and all signatures and tokens, out of what is logged in this process from now on.

    A filter would see the records of one logger only; each record of any logger passes the factory.
    """
    _keys.update(form for key in keys if len(key) >= MIN_LETTERS for form in (key, quote(key, safe="")))
    if not isinstance(logging.getLogRecordFactory(), _RedactingFactory):
        logging.setLogRecordFactory(_RedactingFactory(logging.getLogRecordFactory()))


class _RedactingFactory:
    """Makes log records as another factory does, without the secrets in their texts and tracebacks."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._formatter = logging.Formatter()

    def __call__(self, *args: Any, **options: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **options)
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a message that does not fit its arguments is for logging itself to report
            return record
        if (safe := redacted(message)) != message:
            record.msg, record.args = safe, ()
        if record.exc_info:
            trace = self._formatter.formatException(record.exc_info)
            if (safe := redacted(trace)) != trace:
                # Some handlers would format the exception anew.
                record.exc_info, record.exc_text = None, safe
        return record
