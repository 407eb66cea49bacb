"""URLs of the services, which must not contain secrets, because messages and Prefect show them."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from tasks.errors import ConfigurationError

# These characters introduce a query (which may be a shared access signature), a fragment, and a user with a password.
SECRET_MARKS = frozenset("?#@")

# Messages quote only text without any other characters: a key contains `=`, and a signature `&`.
ADDRESS = re.compile(r"[\w.:/~\[\]-]*")


def parse_url(name: str, text: str) -> SplitResult:
    """Parse an http or https URL that consists of a host, optionally a port, and a path.

    Args:
        name: The name of the setting, for messages.
        text: The URL.

    Raises:
        ConfigurationError: It is not such a URL. The message does not quote what may be a secret.
    """
    if SECRET_MARKS & set(text):
        raise ConfigurationError(
            f"{name} contains more than an address: a signature, another query, a fragment, a user or a password. "
            "Remove what is after `?` or `#`, and what is before `@`. Keys have settings of their own."
        )
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_url = False
    if not is_url:
        quoted = f"is {text!r}, which is" if ADDRESS.fullmatch(text) else "is"
        raise ConfigurationError(
            f"{name} {quoted} not an http or https URL. Set it to a URL like https://myaccount.westeurope.batch.azure.com."
        )
    return parts
