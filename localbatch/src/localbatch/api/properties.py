"""Readers of single properties of a body, with the error codes of the service for invalid values."""

from __future__ import annotations

import re
from collections.abc import Iterable

from localbatch import errors
from localbatch.account.specs import Json
from localbatch.wire import INFINITE, normal_duration, read_ticks

# https://learn.microsoft.com/rest/api/batchservice/pools/create-pool: the ids of pools, jobs and tasks.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def invalid(name: str, value: object, reason: str) -> errors.ServiceError:
    """Return the error for an invalid value."""
    return errors.invalid_property_value(PropertyName=name, PropertyValue=value, Reason=reason)


def required(body: Json, name: str) -> str:
    """Read a required string."""
    value = body.get(name)
    if value is None:
        raise errors.missing_required_property(PropertyName=name)
    if not isinstance(value, str):
        raise invalid(name, value, "The value must be a string")
    return value


def identifier(body: Json) -> str:
    """Read the id of a pool, job or task."""
    value = required(body, "id")
    if not _ID.fullmatch(value):
        raise invalid("id", value, "The value must be 1 to 64 letters, digits, hyphens and underscores")
    return value


def object_of(body: Json, name: str) -> Json:
    """Read an object; by default an empty one."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(name, value, "The value must be an object")
    return dict(value)


def objects(body: Json, name: str, *, required_name: str | None = None) -> list[Json]:
    """Read a list of objects. If `required_name` is set, each object needs that string property."""
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise invalid(name, value, "The value must be a list of objects")
    if required_name:
        for item in value:
            required(item, required_name)
    return value


def check_texts(body: Json, *names: str) -> None:
    """Check that optional properties are strings."""
    for name in names:
        if name in body:
            required(body, name)


def strings(body: Json, name: str) -> list[str]:
    """Read a list of strings."""
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid(name, value, "The value must be a list of strings")
    return value


def check_metadata(body: Json) -> None:
    """Check that metadata are pairs of strings."""
    for item in objects(body, "metadata", required_name="name"):
        required(item, "value")


def integer(body: Json, name: str, default: int, low: int, high: int) -> int:
    """Read an integer. The Azure CLI sends integers as strings."""
    value = body.get(name)
    if value is None:
        return default
    try:
        # bool is a subclass of int, and is refused below.
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise invalid(name, value, f"The value must be an integer from {low} to {high}")
    return number


def flag(body: Json, name: str, *, default: bool) -> bool:
    """Read a boolean, which may also be a string."""
    value = body.get(name)
    if value is None:
        return default
    # The Azure CLI sends booleans as strings too.
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise invalid(name, value, "The value must be true or false")
    return value


def choice(body: Json, name: str, options: Iterable[str], default: str) -> str:
    """Read a value of an enumeration, ignoring case."""
    value = body.get(name)
    if value is None:
        return default
    # Enumerations ignore case; responses have lower case.
    if not isinstance(value, str) or value.lower() not in options:
        raise invalid(name, value, f"The value must be one of {', '.join(options)}")
    return value.lower()


def duration(body: Json, name: str, default: str, low: str = "PT0S", high: str = INFINITE) -> str:
    """Read a duration, and return it in the format of .NET."""
    value = body.get(name)
    if value is None:
        return default
    try:
        # Compare in ticks: a timedelta cannot hold the longest duration of .NET.
        ticks = read_ticks(value)
    except (ValueError, TypeError):
        raise invalid(name, value, "The value must be an ISO 8601 duration") from None
    if not read_ticks(low) <= ticks <= read_ticks(high):
        raise invalid(name, value, f"The value must be from {low} to {high}")
    # The service returns PT60M as PT1H.
    return normal_duration(value)


def refuse(body: Json, *names: str) -> None:
    """Raise UnsupportedProperty for properties that this server cannot honor. Ignoring them would be worse."""
    for name in names:
        if body.get(name):
            raise errors.unsupported_property(PropertyName=name, Reason="The local Batch service does not support it")


def without(body: Json, *names: str) -> Json:
    """Return a copy of a body without some properties."""
    return {name: value for name, value in body.items() if name not in names}
