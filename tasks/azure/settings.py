"""Settings of the Azure accounts and the state folder, read from the environment or `.env`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.errors import ConfigurationError
from tasks.model.parameters import DEFAULT_BLOCK
from tasks.model.urls import parse_url

STATE_FOLDER = ".topn"

ENV_FILE = ".env"

# The type of the Prefect block that can hold the same settings.
BLOCK_TYPE = "topn-azure"

ENDPOINTS = {"batch_endpoint", "storage_endpoint"}

# The name that `use_block` has set.
_block_name: ContextVar[str | None] = ContextVar("block_name", default=None)


class AzureSettings(BaseSettings):
    """Settings of the two Azure accounts. Without a key, the identity that `azure.identity` finds is used."""

    model_config = SettingsConfigDict(
        env_prefix="TOPN_", env_file=ENV_FILE, extra="ignore", frozen=True, env_ignore_empty=True
    )

    batch_endpoint: str | None = None
    batch_account: str | None = None
    batch_key: SecretStr | None = None
    storage_endpoint: str | None = None
    storage_account: str | None = None
    storage_key: SecretStr | None = None
    allow_keys: bool = Field(
        default=True,
        description='Whether account keys are allowed. With "false", a key in the environment or the Prefect block is an error.',
    )

    @property
    def is_configured(self) -> bool:
        """Whether any account setting is present."""
        return any(value is not None for value in self.model_dump(exclude={"allow_keys"}).values())

    @property
    def may_be_local(self) -> bool:
        """Whether a local Azure may be used; it requires account keys to be allowed, although its own are public."""
        return self.allow_keys and not self.is_configured


@contextmanager
def use_block(name: str) -> Iterator[None]:
    """Use the Prefect block with this name, and not that of the current flow run, until the `with` statement ends."""
    token = _block_name.set(name)
    try:
        yield
    finally:
        _block_name.reset(token)


def block_in_use() -> str | None:
    """Return the name that `use_block` has set, or None."""
    return _block_name.get()


def load_settings(block: Mapping[str, str | SecretStr] | None = None, block_name: str = DEFAULT_BLOCK) -> AzureSettings:
    """Read the settings and merge those of a Prefect block.

    Args:
        block: The fields that are set in the block.
        block_name: The name of the block.

    Raises:
        ConfigurationError: The settings are missing, incomplete or contradictory, or a key is not allowed.
    """
    settings = read_settings()
    where = f"the Prefect block {BLOCK_TYPE}/{block_name}"
    if block:
        _require_no_key(settings, where, block)
        settings = _with_block(settings, block, where)
    if not settings.is_configured:
        raise ConfigurationError(
            "No Azure is configured. Set TOPN_BATCH_ENDPOINT and TOPN_STORAGE_ENDPOINT, or the same fields of "
            f"{where}. `make up` provides a local Azure for deployed runs. `localbatch serve` starts only "
            "a local Azure and prints the variables to export."
        )
    if missing := _missing(settings):
        places = f" here or in {where}" if block else ""
        raise ConfigurationError(f"The Azure settings are incomplete: also set {' and '.join(missing)}{places}.")
    return settings


def read_settings() -> AzureSettings:
    """Read the settings, which may be incomplete.

    Raises:
        ConfigurationError: A setting is not valid, or a key is not allowed.
    """
    try:
        variables = frozenset(item for item in os.environ.items() if item[0].upper().startswith("TOPN_"))
        settings = _settings(variables, Path(ENV_FILE).absolute(), _version_of(ENV_FILE))
    except ValidationError as error:
        problem = error.errors()[0]
        name = "_".join(str(part) for part in problem["loc"]).upper().removeprefix("TOPN_")
        raise ConfigurationError(f"TOPN_{name} cannot be read: {problem['msg']}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The TOPN_ settings cannot be read: {error}") from error
    own = {name: value for name, value in settings if value is not None}
    _require_no_key(settings, "the environment or .env", own)
    for name in ENDPOINTS & own.keys():
        parse_url(f"TOPN_{name.upper()}", getattr(settings, name))
    return settings


@lru_cache(maxsize=4)
def _settings(variables: frozenset[tuple[str, str]], file: Path, version: tuple[int, ...]) -> AzureSettings:
    """Return the settings in an environment and a file. Every step asks for them, and reading them takes 2 ms."""
    del variables, file, version
    return AzureSettings()


def _version_of(name: str) -> tuple[int, ...]:
    """Return a value that is another one after each change of a file; an empty tuple for no file."""
    try:
        status = os.stat(name)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def account_of(endpoint: str) -> str | None:
    """Return the account name in an endpoint of the Azure cloud, or None for any other endpoint."""
    host = urlsplit(endpoint).hostname or ""
    return host.split(".", 1)[0] if host.count(".") >= 2 and not host[0].isdigit() else None  # noqa: PLR2004


def state_folder() -> Path:
    """Return the folder for databases, results and the data of the local Azure."""
    return Path(os.environ.get("TOPN_STATE") or STATE_FOLDER).absolute()


def results_location() -> str:
    """Return where finished results are stored: a folder, or a place in Blob Storage, such as ``az://container/prefix``."""
    return os.environ.get("TOPN_RESULTS") or str(state_folder() / "results")


def _with_block(settings: AzureSettings, block: Mapping[str, str | SecretStr], where: str) -> AzureSettings:
    """Merge the block's values; neither source takes precedence.

    Raises:
        ConfigurationError: A value differs between the two, or an endpoint of the block is not valid.
    """
    for name in ENDPOINTS & block.keys():
        parse_url(f"{name} of {where}", _text(block[name]))
    own = {name: value for name, value in settings if value is not None}
    for name in own.keys() & block.keys():
        if _text(own[name]) != _text(block[name]):
            values = "" if name.endswith("_key") else f": {own[name]} and {block[name]}"
            raise ConfigurationError(f"TOPN_{name.upper()} and `{name}` of {where} differ{values}. Unset one of them.")
    # The constructor would read the environment again.
    return settings.model_copy(update={**block, **own})


def _require_no_key(settings: AzureSettings, where: str, values: Mapping[str, object]) -> None:
    for name in ("batch_key", "storage_key"):
        if name in values and not settings.allow_keys:
            raise ConfigurationError(
                f"TOPN_ALLOW_KEYS is false, but {where} has {name}. Remove the key to use an identity."
            )


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _missing(settings: AzureSettings) -> list[str]:
    missing = []
    for half in ("batch", "storage"):
        endpoint = getattr(settings, f"{half}_endpoint")
        if endpoint is None:
            missing.append(f"TOPN_{half.upper()}_ENDPOINT")
        if getattr(settings, f"{half}_account") is None and not (endpoint and account_of(endpoint)):
            missing.append(f"TOPN_{half.upper()}_ACCOUNT")
        if endpoint and endpoint.startswith("http:") and getattr(settings, f"{half}_key") is None:
            missing.append(f"TOPN_{half.upper()}_KEY (a token is never sent over plain http)")
    return missing
