"""Check: see that the configured Azure can be used, and say what to do where it cannot; nothing is created."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.client import NO_IDENTITY, identity_name
from tasks.azure.settings import AzureSettings
from tasks.errors import ConfigurationError, ServiceError
from tasks.model.pool import PoolOptions
from tasks.steps.pool_selection import check_pool_options, choose_identity, choose_image, support_warning
from tasks.steps.provision import existing_pool

# Half of what tokens and signatures allow for.
MAX_CLOCK_DIFFERENCE = timedelta(minutes=5)

# Scopes of the services' tokens. Source: their documentation on Microsoft Entra ID.
SCOPES = {"Batch": "https://batch.core.windows.net/.default", "Storage": "https://storage.azure.com/.default"}
ROLES = {"Batch": "Azure Batch Data Contributor", "Storage": "Storage Blob Data Contributor"}


class Status(str, Enum):
    """How a check ended."""

    FINE = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found: one line, which says what to do where it failed."""

    status: Status
    sentence: str


def check(
    batch: BatchAccount, blobs: BlobAccount, settings: AzureSettings, options: PoolOptions, now: datetime
) -> Iterator[Finding]:
    """Look at everything that a run needs and that can be seen without creating anything.

    Args:
        batch: The Batch account.
        blobs: The storage account.
        settings: What leads there.
        options: The pool that the run would have.
        now: This machine's time.

    Raises:
        ConfigurationError: The options contradict each other.
    """
    check_pool_options(options)
    batch_dates, storage_dates = _Dates(), _Dates()
    yield (answer := _answer("Batch", settings, lambda: batch.images(retry_total=0, raw_response_hook=batch_dates)))
    yield from batch_dates.findings("Batch", now)
    if answer.status is Status.FINE:
        yield _attempt(settings, "This may change and delete jobs and pools.", batch.check_writing)
        yield _image(batch, options, now)
        yield _quota(batch)
        if options.pool_id is not None:
            yield _existing_pool(batch, options.pool_id, options)
    yield (answer := _answer("Storage", settings, lambda: blobs.check(retry_total=0, raw_response_hook=storage_dates)))
    yield from storage_dates.findings("Storage", now)
    if answer.status is Status.FINE:
        yield _attempt(settings, "This may write blobs.", blobs.check_writing)
        soon = now + timedelta(hours=1)
        yield _attempt(settings, "This may sign URLs for nodes.", lambda: blobs.write_url("topn-check", soon))


def advice(error: ServiceError, settings: AzureSettings) -> str:
    """Say what to do about a service that cannot be used."""
    half = error.service.lower()
    by_key = getattr(settings, f"{half}_key") is not None
    prefix = f"TOPN_{half.upper()}"
    match error.code:
        case "CertificateRefused":
            return "If a private authority signed it, name the file of that in REQUESTS_CA_BUNDLE; if it has ended, renew it."
        case "ConnectionRefused" | "HostUnknown" | "TimedOut":
            return f"Check {prefix}_ENDPOINT, and the way there: name server, firewall, private endpoint."
        case code if code == NO_IDENTITY:
            return "Run `az login`, or give this machine a managed identity or AZURE_CLIENT_ID, AZURE_TENANT_ID and a secret."
        case "AuthenticationFailed" | "InvalidAuthenticationInfo" if by_key:
            return f"Check {prefix}_ACCOUNT, {prefix}_KEY and this machine's clock."
        case "AuthenticationFailed" | "InvalidAuthenticationInfo":
            return "Check that the identity is of the account's tenant (AZURE_TENANT_ID), and this machine's clock."
        case "AuthorizationFailure" if by_key:
            return f"Check {prefix}_ACCOUNT and {prefix}_KEY, and that the account's firewall lets this machine in."
        case "AuthorizationFailure":
            return "Let this machine's network through the account's firewall, or run within its network."
        case "KeyBasedAuthenticationNotPermitted" | "SharedKeyAccessNotPermitted":
            return f"The account takes no keys: unset {prefix}_KEY, so that an identity is used."
        case code if code.startswith(("Authorization", "Permission", "InsufficientAccount", "HTTP 403")):
            return f'Assign the role "{ROLES[error.service]}" on the account to the identity; that takes some minutes.'
    return "Check the TOPN_ settings."


def _answer(service: str, settings: AzureSettings, ask: Callable[[], object]) -> Finding:
    endpoint = getattr(settings, f"{service.lower()}_endpoint")
    try:
        ask()
    except ServiceError as error:
        return _failure(error, settings, f" [{endpoint}, by {_who(service, settings, error.code)}]")
    sentence = f"{service} answers at {endpoint} and takes {_who(service, settings)}."
    return Finding(status=Status.FINE, sentence=sentence)


def _who(service: str, settings: AzureSettings, code: str = "") -> str:
    if getattr(settings, f"{service.lower()}_key") is not None:
        return "the key"
    name = identity_name(SCOPES[service]) if code != NO_IDENTITY else ""
    return f"the identity ({name})" if name else "an identity"


def _attempt(settings: AzureSettings, sentence: str, do: Callable[[], object]) -> Finding:
    try:
        do()
    except ServiceError as error:
        return _failure(error, settings)
    return Finding(status=Status.FINE, sentence=sentence)


def _failure(error: ServiceError, settings: AzureSettings, where: str = "") -> Finding:
    told = f"{str(error).removesuffix('.')}{where}. {advice(error, settings)}"
    return Finding(status=Status.FAILED, sentence=told)


def _image(batch: BatchAccount, options: PoolOptions, now: datetime) -> Finding:
    if options.setup.image_id is not None:
        return Finding(status=Status.NOTE, sentence="Whether the image of your own is there, a run will tell.")
    try:
        image = choose_image(batch, options.setup, now)
    except (ConfigurationError, ServiceError) as error:
        return Finding(status=Status.FAILED, sentence=str(error))
    if warning := support_warning(image, now):
        return Finding(status=Status.NOTE, sentence=warning)
    return Finding(status=Status.FINE, sentence=f"Nodes would have the image {image.offer} {image.sku}.")


def _quota(batch: BatchAccount) -> Finding:
    """Look for pools that a quota keeps from growing: the quotas themselves are not seen by this API."""
    try:
        problems = [(pool.pool_id, problem) for pool in batch.stuck_pools() for problem in pool.resize_problems]
    except ServiceError as error:
        return Finding(status=Status.FAILED, sentence=str(error))
    for pool_id, problem in problems:
        if "Quota" in problem.code:
            told = f"Pool {pool_id} does not get its nodes: {problem.message.rstrip('.')} [{problem.code}]."
            sentence = f"{told} Ask for more in the portal (Batch account, Quotas), or delete pools."
            return Finding(status=Status.FAILED, sentence=sentence)
    sentence = "No pool waits for quota; the quotas themselves stand in the portal (Batch account, Quotas)."
    return Finding(status=Status.FINE, sentence=sentence)


def _existing_pool(batch: BatchAccount, pool_id: str, options: PoolOptions) -> Finding:
    try:
        identity = choose_identity(pool_id, existing_pool(batch, pool_id).identities, options.setup)
    except (ConfigurationError, ServiceError) as error:
        return Finding(status=Status.FAILED, sentence=str(error))
    how = f"as {identity.rsplit('/', 1)[-1]}" if identity else "by signed URLs"
    return Finding(status=Status.FINE, sentence=f"Pool {pool_id} is there; its nodes read and write blobs {how}.")


class _Dates:
    """When a service answered, by its clock, as its responses say."""

    def __init__(self) -> None:
        self._dates: list[datetime] = []

    def __call__(self, response: Any) -> None:
        """Note the date of a response."""
        if date := response.http_response.headers.get("Date"):
            self._dates.append(parsedate_to_datetime(date))

    def findings(self, service: str, now: datetime) -> Iterator[Finding]:
        """Say whether this machine's clock is another."""
        if not self._dates:
            return
        difference = self._dates[0] - now
        minutes = round(abs(difference) / timedelta(minutes=1))
        if abs(difference) <= MAX_CLOCK_DIFFERENCE:
            yield Finding(status=Status.FINE, sentence=f"This machine's clock is that of {service}.")
            return
        how = "behind" if difference > timedelta() else "ahead of"
        told = f"This machine's clock is {minutes} minutes {how} that of {service}."
        yield Finding(
            status=Status.FAILED, sentence=f"{told} Set it by the network (NTP): tokens and signatures go by it."
        )
