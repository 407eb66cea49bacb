"""Check whether a run can use the configured Azure, without creating anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.client import NO_IDENTITY_CODE, identity_name
from tasks.azure.settings import AzureSettings
from tasks.clock import MAX_CLOCK_DIFFERENCE, describe_difference, read_http_date
from tasks.errors import ConfigurationError, ServiceError
from tasks.model.pool import PoolOptions, describe_cores
from tasks.model.vm_size import vm_size
from tasks.steps.pool_selection import check_pool_options, choose_identity, choose_image, support_warning
from tasks.steps.provision import get_existing_pool

# Sources: https://learn.microsoft.com/en-us/azure/batch/batch-aad-auth
# and https://learn.microsoft.com/en-us/azure/storage/blobs/authorize-access-azure-active-directory
SCOPES = {"Batch": "https://batch.core.windows.net/.default", "Storage": "https://storage.azure.com/.default"}
ROLES = {"Batch": "Azure Batch Data Contributor", "Storage": "Storage Blob Data Contributor"}


NOT_CHECKED = (
    "Not checked: the quotas, whether the region has the VM size, and whether nodes reach the storage account."
)


class Status(str, Enum):
    """The status of a finding, as `topn check` prints it."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The finding of one check: one line, which includes what to do if the check failed."""

    status: Status
    message: str


def check(
    batch: BatchAccount, blobs: BlobAccount, settings: AzureSettings, options: PoolOptions, now: datetime
) -> Iterator[Finding]:
    """Yield one finding for each thing that a run needs; nothing is created.

    Args:
        batch: The Batch account.
        blobs: The storage account.
        settings: The settings of both accounts.
        options: The pool options of the run.
        now: The current time on this machine.

    Raises:
        ConfigurationError: The options contradict each other.
    """
    check_pool_options(options, settings)
    batch_dates, storage_dates = _ResponseDates(), _ResponseDates()
    yield (
        access := _access("Batch", settings, lambda: batch.list_images(retry_total=0, raw_response_hook=batch_dates))
    )
    yield from batch_dates.findings("Batch", now)
    if access.status is Status.OK:
        yield _attempt(settings, "The credential can change and delete jobs and pools.", batch.check_write_access)
        yield _image(batch, options, now)
        yield _quota(batch, options)
        if options.pool_id is not None:
            yield _existing_pool(batch, options.pool_id, options)
    yield (access := _access("Storage", settings, lambda: blobs.check(retry_total=0, raw_response_hook=storage_dates)))
    yield from storage_dates.findings("Storage", now)
    if access.status is Status.OK:
        yield _attempt(settings, "The credential can write blobs.", blobs.check_write_access)
        soon = now + timedelta(hours=1)
        sign = "The credential can sign URLs for nodes. A run renews them, so each expires after at most 24 hours."
        yield _attempt(settings, sign, lambda: blobs.write_url("topn-check", soon))
    yield Finding(status=Status.NOTE, message=NOT_CHECKED)


def advice(error: ServiceError, settings: AzureSettings) -> str:
    """Return a sentence on how to fix the access to a service."""
    service = error.service.lower()
    has_key = getattr(settings, f"{service}_key") is not None
    prefix = f"TOPN_{service.upper()}"
    match error.code:
        case "CertificateRefused":
            return "Renew the certificate if it expired, or set REQUESTS_CA_BUNDLE to your private authority's file."
        case "ConnectionRefused" | "HostUnknown" | "TimedOut":
            return f"Check {prefix}_ENDPOINT and the network: DNS, firewall, private endpoint."
        case code if code == NO_IDENTITY_CODE:
            return "Run `az login`, use a managed identity, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and a secret."
        case "AuthenticationFailed" | "InvalidAuthenticationInfo" if has_key:
            return f"Check {prefix}_ACCOUNT, {prefix}_KEY and this machine's clock."
        case "AuthenticationFailed" | "InvalidAuthenticationInfo":
            return "Check this machine's clock, and that the identity is in the account's tenant (AZURE_TENANT_ID)."
        case "AuthorizationFailure" if has_key:
            return f"Check {prefix}_ACCOUNT and {prefix}_KEY, and that the account's firewall allows this machine."
        case "AuthorizationFailure":
            return "Allow this machine's network in the account's firewall, or run inside an allowed network."
        case "KeyBasedAuthenticationNotPermitted" | "SharedKeyAccessNotPermitted":
            return f"The account does not accept keys. Unset {prefix}_KEY to use an identity."
        case code if code.startswith(("Authorization", "Permission", "InsufficientAccount", "HTTP 403")):
            return f'Assign the role "{ROLES[error.service]}" on the account to the identity, and wait a few minutes.'
    return "Check the TOPN_ settings."


def _access(service: str, settings: AzureSettings, request: Callable[[], object]) -> Finding:
    endpoint = getattr(settings, f"{service.lower()}_endpoint")
    try:
        request()
    except ServiceError as error:
        return _failure(error, settings, f" [{endpoint}, with {_credential(service, settings, error.code)}]")
    message = f"{service} responds at {endpoint} and accepts {_credential(service, settings)}."
    return Finding(status=Status.OK, message=message)


def _credential(service: str, settings: AzureSettings, code: str = "") -> str:
    if getattr(settings, f"{service.lower()}_key") is not None:
        return "the key"
    name = identity_name(SCOPES[service]) if code != NO_IDENTITY_CODE else ""
    return f"the identity ({name})" if name else "an identity"


def _attempt(settings: AzureSettings, message: str, request: Callable[[], object]) -> Finding:
    try:
        request()
    except ServiceError as error:
        return _failure(error, settings)
    return Finding(status=Status.OK, message=message)


def _failure(error: ServiceError, settings: AzureSettings, where: str = "") -> Finding:
    message = f"{str(error).removesuffix('.')}{where}. {advice(error, settings)}"
    return Finding(status=Status.FAILED, message=message)


def _image(batch: BatchAccount, options: PoolOptions, now: datetime) -> Finding:
    if options.setup.image_id is not None:
        return Finding(status=Status.NOTE, message="The image `image_id` is not checked until a run.")
    try:
        image = choose_image(batch, options, now)
    except (ConfigurationError, ServiceError) as error:
        return Finding(status=Status.FAILED, message=str(error))
    if warning := support_warning(image, now):
        return Finding(status=Status.NOTE, message=warning)
    needs = vm_size(options.vm_size).requirements
    end = f", supported until {image.end_of_life_at:%Y-%m-%d}" if image.end_of_life_at else ""
    message = (
        f"Nodes would use the image {image.offer} {image.sku}{end}. It fits the VM size {options.vm_size} ({needs})."
    )
    return Finding(status=Status.OK, message=message)


def _quota(batch: BatchAccount, options: PoolOptions) -> Finding:
    """Check for pools that cannot grow because of a quota; the Batch API does not return the quotas themselves."""
    try:
        problems = [
            (pool.pool_id, problem)
            for pool in batch.list_pools_with_resize_errors()
            for problem in pool.resize_problems
        ]
    except ServiceError as error:
        return Finding(status=Status.FAILED, message=str(error))
    for pool_id, problem in problems:
        if "Quota" in problem.code:
            shortage = f"Pool `{pool_id}` cannot get its nodes: {problem.message.rstrip('.')} [{problem.code}]."
            message = f"{shortage} Request more quota in the portal (Batch account, Quotas), or delete pools."
            return Finding(status=Status.FAILED, message=message)
    return Finding(status=Status.OK, message=f"No pool is waiting for quota. {describe_cores(options)}")


def _existing_pool(batch: BatchAccount, pool_id: str, options: PoolOptions) -> Finding:
    try:
        identity = choose_identity(pool_id, get_existing_pool(batch, pool_id).identities, options.setup)
    except (ConfigurationError, ServiceError) as error:
        return Finding(status=Status.FAILED, message=str(error))
    how = f"as `{identity.rsplit('/', 1)[-1]}`" if identity else "with signed URLs"
    return Finding(status=Status.OK, message=f"Pool `{pool_id}` exists. Its nodes read and write blobs {how}.")


class _ResponseDates:
    """The `Date` headers of a service's responses."""

    def __init__(self) -> None:
        self._dates: list[datetime] = []

    def __call__(self, response: Any) -> None:
        """Record the date of a response."""
        if date := read_http_date(response.http_response.headers.get("Date")):
            self._dates.append(date)

    def findings(self, service: str, now: datetime) -> Iterator[Finding]:
        """Compare this machine's clock with that of the service."""
        if not self._dates:
            return
        difference = self._dates[0] - now
        if abs(difference) <= MAX_CLOCK_DIFFERENCE:
            yield Finding(status=Status.OK, message=f"This machine's clock agrees with that of {service}.")
        else:
            yield Finding(status=Status.FAILED, message=describe_difference(difference, service))
