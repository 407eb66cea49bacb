"""Where the Azure accounts are, and with which key: read from the environment or `.env`, at the edge only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.errors import ConfigurationError

STATE_FOLDER = ".topn"

# What the error messages call the Prefect block that can hold the same.
BLOCK = "topn-azure/default"

ENDPOINTS = {"batch_endpoint", "storage_endpoint"}


class AzureSettings(BaseSettings):
    """The two accounts. An endpoint without a key is used with the identity that `azure.identity` finds."""

    model_config = SettingsConfigDict(
        env_prefix="TOPN_", env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )

    batch_endpoint: str | None = None
    batch_account: str | None = None
    batch_key: SecretStr | None = None
    storage_endpoint: str | None = None
    storage_account: str | None = None
    storage_key: SecretStr | None = None
    allow_keys: bool = Field(
        default=True,
        description='Whether account keys may be used. With "false", a key here or in the Prefect block is an error.',
    )

    @property
    def is_configured(self) -> bool:
        """Whether an account is told of."""
        return any(value is not None for value in self.model_dump(exclude={"allow_keys"}).values())

    @property
    def may_be_local(self) -> bool:
        """Whether a local Azure may stand in: it has keys, if no secret ones."""
        return self.allow_keys and not self.is_configured


def load_settings(block: Mapping[str, str | SecretStr] | None = None) -> AzureSettings:
    """Read the settings, and put what a Prefect block holds beside them.

    Args:
        block: The fields that are set in the block.

    Raises:
        ConfigurationError: None is set, or half of them, or block and environment differ, or a key is set that may not
            be; the message names what.
    """
    settings = read_settings()
    if block:
        _require_no_key(settings, f"the Prefect block {BLOCK}", block)
        settings = _with_block(settings, block)
    if not settings.is_configured:
        raise ConfigurationError(
            "No Azure is configured: set TOPN_BATCH_ENDPOINT and TOPN_STORAGE_ENDPOINT, or the same in the Prefect "
            f"block {BLOCK}. Deployed runs have a local Azure under `make up`; `localbatch serve` starts one alone, "
            "and prints the lines to export."
        )
    if missing := _missing(settings):
        where = f" here or in the block {BLOCK}" if block else ""
        raise ConfigurationError(f"Half of the Azure settings are there: set {' and '.join(missing)} too{where}.")
    return settings


def read_settings() -> AzureSettings:
    """Read the settings as they are, complete or not.

    Raises:
        ConfigurationError: One cannot be read, or is no endpoint, or a key that may not be used.
    """
    try:
        settings = AzureSettings()
    except ValidationError as error:
        problem = error.errors()[0]
        name = "_".join(str(part) for part in problem["loc"]).upper().removeprefix("TOPN_")
        raise ConfigurationError(f"TOPN_{name} cannot be read: {problem['msg']}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The TOPN_ settings cannot be read: {error}") from error
    own = {name: value for name, value in settings if value is not None}
    _require_no_key(settings, "the environment or .env", own)
    for name in ENDPOINTS:
        _require_endpoint(f"TOPN_{name.upper()}", getattr(settings, name))
    return settings


def account_of(endpoint: str) -> str | None:
    """Take the account's name from an endpoint of the Azure cloud; None for any other."""
    host = urlsplit(endpoint).hostname or ""
    return host.split(".", 1)[0] if host.count(".") >= 2 and not host[0].isdigit() else None  # noqa: PLR2004


def state_folder() -> Path:
    """Where databases, results and the local Azure's data are kept between runs."""
    return Path(os.environ.get("TOPN_STATE") or STATE_FOLDER).absolute()


def results_location() -> str:
    """Where finished results are kept: a folder, or the URL of a blob container."""
    return os.environ.get("TOPN_RESULTS") or str(state_folder() / "results")


def _with_block(settings: AzureSettings, block: Mapping[str, str | SecretStr]) -> AzureSettings:
    """Add the block's values; none of the two wins where both say something else.

    Raises:
        ConfigurationError: They differ, or the block has an endpoint that is none.
    """
    own = {name: value for name, value in settings if value is not None}
    for name in own.keys() & block.keys():
        if _text(own[name]) != _text(block[name]):
            says = "hold different keys" if name.endswith("_key") else f"differ: {own[name]} and {block[name]}"
            raise ConfigurationError(
                f"TOPN_{name.upper()} and {name} of the Prefect block {BLOCK} {says}. Make them agree, or unset one."
            )
    for name in ENDPOINTS & block.keys():
        _require_endpoint(f"{name} of the Prefect block {BLOCK}", _text(block[name]))
    # Not through the constructor, which would read the environment once more.
    return settings.model_copy(update={**block, **own})


def _require_no_key(settings: AzureSettings, where: str, values: Mapping[str, object]) -> None:
    for name in ("batch_key", "storage_key"):
        if name in values and not settings.allow_keys:
            raise ConfigurationError(
                f"TOPN_ALLOW_KEYS is false, and {where} has {name}: remove it there, so that an identity is used."
            )


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _require_endpoint(name: str, endpoint: str | None) -> None:
    if endpoint is not None and not _is_endpoint(endpoint):
        raise ConfigurationError(
            f"{name} is {endpoint!r}, which is no http or https address: "
            "set it to one, such as https://myaccount.westeurope.batch.azure.com."
        )


def _is_endpoint(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _missing(settings: AzureSettings) -> list[str]:
    missing = []
    for half in ("batch", "storage"):
        endpoint = getattr(settings, f"{half}_endpoint")
        if endpoint is None:
            missing.append(f"TOPN_{half.upper()}_ENDPOINT")
        if getattr(settings, f"{half}_account") is None and not (endpoint and account_of(endpoint)):
            missing.append(f"TOPN_{half.upper()}_ACCOUNT")
        if endpoint and endpoint.startswith("http:") and getattr(settings, f"{half}_key") is None:
            missing.append(f"TOPN_{half.upper()}_KEY (an identity's token is not sent over plain http)")
    return missing
