"""The environment variables of this process that libraries read: proxies, certificate files and the home folder."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from tasks.errors import ConfigurationError

# Names and addresses of this machine, where our own servers listen.
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")

# httpx, requests and urllib read these in lower and upper case.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
PROXY_SCHEMES = frozenset({"", "http", "https", "socks5", "socks5h"})

# Read by OpenSSL and httpx, by requests, and by Prefect.
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PREFECT_API_SSL_CERT_FILE")
# These two of them can also name a folder of certificates.
FOLDER_VARIABLES = frozenset({"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"})


def bypass_proxies_on_loopback() -> list[str]:
    """Exclude this machine from the configured proxies, for this process and its children.

    Returns:
        The variables that were removed because no client of this project can use their proxy. Prefect's client does
        not start with such a variable, even if it needs no proxy.
    """
    proxies = {name: value for name, value in os.environ.items() if name.lower() in PROXY_VARIABLES and value}
    removed = [name for name, value in proxies.items() if not _is_proxy(value)]
    for name in removed:
        del os.environ[name]
    # With `no_proxy` alone, macOS would no longer use the proxies of its system settings.
    if len(proxies) > len(removed):
        listed = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")).split(",")
        hosts = list(dict.fromkeys(host for each in (*listed, *LOOPBACK_HOSTS) if (host := each.strip())))
        # A `*` only has its meaning alone.
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*" if "*" in hosts else ",".join(hosts)
    return removed


def _is_proxy(value: str) -> bool:
    try:
        parts = urlsplit(value if "://" in value else f"//{value}")
        return parts.scheme in PROXY_SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def check_certificate_variables() -> None:
    """Check that the certificates that the environment names can be read. Otherwise, clients fail with a traceback.

    Raises:
        ConfigurationError: A file or folder does not exist, cannot be read, or contains no certificate.
    """
    for name in CERTIFICATE_VARIABLES:
        if path := os.environ.get(name):
            try:
                _check_certificates(path, may_be_folder=name in FOLDER_VARIABLES)
            except OSError as error:
                raise _invalid_variable(name, path, error.strerror or str(error)) from error
    if (folders := os.environ.get("SSL_CERT_DIR")) and not any(map(os.path.isdir, folders.split(os.pathsep))):
        raise _invalid_variable("SSL_CERT_DIR", folders, "No such folder")
    # Python opens this file for every TLS context.
    if path := os.environ.get("SSLKEYLOGFILE"):
        try:
            with open(path, "ab"):
                pass
        except OSError as error:
            raise _invalid_variable("SSLKEYLOGFILE", path, error.strerror or str(error)) from error


@lru_cache
def _check_certificates(path: str, *, may_be_folder: bool) -> None:
    import ssl  # noqa: PLC0415 - slow, and most environments have none of these variables

    if may_be_folder and os.path.isdir(path):
        return
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)


def _invalid_variable(name: str, value: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The variable {name} is `{value}`, which cannot be used ({reason}). Correct or unset it."
    )


def ensure_home_folder(state: Path) -> None:
    """Let libraries use the state folder if there is no home folder, or if it cannot be written.

    Prefect does not even import without a home folder, as in a container with an arbitrary user id.
    """
    home = os.path.expanduser("~")
    if not os.path.isabs(home) or not os.path.isdir(home):
        os.environ["HOME"] = str(state)
        os.environ.setdefault("PREFECT_HOME", str(state))
    elif not os.access(home, os.W_OK):
        # What the home folder contains stays readable, for example the login of the Azure CLI.
        os.environ.setdefault("MPLCONFIGDIR", str(state / "matplotlib"))
        if not os.path.isdir(os.path.join(home, ".prefect")):
            os.environ.setdefault("PREFECT_HOME", str(state))
        elif not os.access(os.path.join(home, ".prefect"), os.W_OK):
            os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(state / "storage"))
