"""URLs of the services, which must not contain secrets, because messages and Prefect show them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from tasks.errors import ConfigurationError, UsageError
from tasks.text import printable

# These characters introduce a query (which may be a shared access signature), a fragment, and a user with a password.
SECRET_MARKS = frozenset("?#@")

# The start of a URL.
URL = re.compile(r"[A-Za-z][\w+.-]*://")

# A place in the configured storage account.
AZ = "az://"

# A parameter of a shared access signature.
SIGNATURE = re.compile(r"[?&](sig|sv|se|sp)=", re.IGNORECASE)

# Source: https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
CONTAINER = re.compile(r"\$root|\$web|\$logs|(?=.{3,63}$)[a-z0-9](-?[a-z0-9])+")

PLACE_FORMS = "Use az://CONTAINER/PATH or https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH."

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


@dataclass(frozen=True, slots=True)
class Place:
    """A place in Blob Storage.

    Attributes:
        account: URL of the storage account; "" for the configured one.
        container: Name of the container; "" for the whole account.
        path: Name of a blob, or the start of names; "" for the whole container.
    """

    account: str
    container: str
    path: str

    def __str__(self) -> str:
        if self.account:
            return "/".join(filter(None, (self.account, self.container, quoted_blob(self.path))))
        return AZ + "/".join(filter(None, (self.container, self.path)))


def parse_place(name: str, text: str) -> Place:
    """Parse the URL of an account, a container or a blob: `az://CONTAINER/PATH`, or a URL of a blob endpoint.

    The path of `az://` is literal. That of other URLs is percent-encoded.

    Args:
        name: What the URL is for, for messages.
        text: The URL.

    Raises:
        UsageError: It is no such URL, or contains a signature. The message does not quote what may be a secret.
    """
    if SIGNATURE.search(text) or (not text.startswith(AZ) and SECRET_MARKS & set(text)):
        raise UsageError(
            f"{name} contains more than the address of a blob: a signature, another query, a fragment, a user or a "
            "password. Remove what is after `?` or `#`, and what is before `@`. Write `%3F`, `%23` and `%40` for these "
            "characters in a name."
        )
    if text.startswith(AZ):
        account, path = "", text.removeprefix(AZ)
    else:
        account, path = _split_account(name, text)
    container, _, blob = path.partition("/")
    if container and not CONTAINER.fullmatch(container):
        raise UsageError(
            f"{name} {printable(text)} names the container `{printable(container)}`. Names of containers consist of 3 to 63 "
            f"lower-case letters, digits and single dashes. {PLACE_FORMS}"
        )
    if not account:
        return Place(account, container, blob)
    return Place(account, container, unquote(blob, errors="surrogateescape"))


def _split_account(name: str, text: str) -> tuple[str, str]:
    """Split a URL into that of the account and the rest. On this machine, the path begins with the name of the account."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    is_local = _is_loopback(host)
    if parts.scheme not in ("https", "http") or not (is_local or ".blob." in host):
        raise UsageError(f"{name} {printable(text)} is not in Blob Storage. {PLACE_FORMS}")
    if parts.scheme == "http" and not is_local:
        raise UsageError(f"{name} {printable(text)} is not encrypted. Use https.")
    netloc = host if port is None else f"{host}:{port}"
    account, path = f"{parts.scheme}://{netloc}", parts.path.removeprefix("/")
    if is_local and ".blob." not in host:
        first, _, path = path.partition("/")
        account = f"{account}/{first}".rstrip("/")
    return account, path


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def quoted_blob(blob: str) -> str:
    """Return the name of a blob in a URL. Clients would remove segments of dots if their slashes were not encoded."""
    return quote(blob, safe="~" if {".", ".."} & set(blob.split("/")) else "~/", errors="surrogateescape")
