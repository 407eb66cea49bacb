"""Readers of request bodies and their properties, with the error codes of the service for invalid values.

`read_body` reads a body as its type says. The others read single properties of a body that was read.
"""

from __future__ import annotations

from copy import deepcopy

from localbatch import errors
from localbatch.account.specs import Json
from localbatch.api.known_properties import DEFAULTS, FORMATS, TYPES, Property
from localbatch.wire import INFINITE, normal_duration, read_ticks

# The namespace of the types in error messages.
_NAMESPACE = "Microsoft.Azure.Batch.Protocol.Entities"
# Kinds of properties that are accepted and not kept.
_DROPPED = frozenset({"secret", "ignored"})


def read_body(body: Json, kind: str) -> Json:
    """Return a body with its values as the service returns them, and with the defaults of the service.

    Args:
        body: The body as sent. Null is the same as no property.
        kind: A key of `known_properties.TYPES`.

    Raises:
        ServiceError: InvalidRequestBody, InvalidPropertyValue or MissingRequiredProperty.
    """
    properties = TYPES[kind]
    read: Json = {}
    for name, value in body.items():
        known = properties.get(name)
        if known and value is not None:
            read[name] = _values(name, known, value)
        # Clients may send back the OData annotations of a response.
        elif not known and not name.startswith("odata."):
            type_name = kind.title().replace("_", "") if kind.islower() else kind
            raise _malformed(
                f"The property '{name}' does not exist on type '{_NAMESPACE}.{type_name}'. "
                "Make sure to only use property names that are defined by the type."
            )
    for name, known in properties.items():
        if known.is_required and name not in read:
            raise errors.missing_required_property(PropertyName=name)
    defaults = DEFAULTS.get(kind, {}) if body else {}
    missing = {name: deepcopy(value) for name, value in defaults.items() if name not in read}
    return {name: value for name, value in read.items() if properties[name].kind not in _DROPPED} | missing


def _values(name: str, known: Property, value: object) -> object:
    if not known.is_list:
        return _value(name, known, value)
    if not isinstance(value, list):
        raise _unexpected("StartArray")
    return [_value(name, known, each) for each in value]


def _value(name: str, known: Property, value: object) -> object:
    """Convert one value. The Azure CLI sends numbers and booleans as strings."""
    if known.kind in TYPES or known.kind == "object":
        if not isinstance(value, dict):
            raise _unexpected("StartObject")
        return read_body(value, known.kind) if known.kind in TYPES else value
    if known.kind == "int":
        return _integer(value)
    if known.kind == "bool":
        text = str(value).lower()
        if not isinstance(value, bool | str) or text not in {"true", "false"}:
            raise _not_a("Boolean")
        return text == "true"
    if known.kind in {"any", "ignored"} or (isinstance(value, dict) and known.kind == "secret"):
        return value
    if not isinstance(value, str):
        raise _not_a("String")
    return _text(name, known, value)


def _integer(value: object) -> int:
    try:
        # bool is a subclass of int.
        if isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise _not_a("Int32")


def _text(name: str, known: Property, value: str) -> str:
    if known.kind == "duration":
        try:
            # The service returns PT60M as PT1H.
            return normal_duration(value)
        except ValueError:
            raise invalid(name, value, "The value must be an ISO 8601 duration") from None
    if known.values and value.lower() not in known.values:
        raise invalid(name, value, f"The value must be one of {', '.join(known.values.values())}")
    pattern, reason = FORMATS.get(known.format, (None, ""))
    if pattern and not pattern.fullmatch(value):
        raise invalid(name, value, reason)
    return known.values.get(value.lower(), value)


def _malformed(reason: str) -> errors.ServiceError:
    return errors.invalid_request_body(Reason=reason)


def _not_a(kind: str) -> errors.ServiceError:
    # https://github.com/Azure/azure-powershell/issues/12147
    return _malformed(
        f"Cannot convert a primitive value to the expected type 'Edm.{kind}'. See the inner exception for more details."
    )


def _unexpected(node: str) -> errors.ServiceError:
    return _malformed(f"An unexpected node was found when reading from the JSON reader. A '{node}' node was expected.")


def invalid(name: str, value: object, reason: str) -> errors.ServiceError:
    """Return the error for an invalid value."""
    return errors.invalid_property_value(PropertyName=name, PropertyValue=value, Reason=reason)


def check_range(body: Json, name: str, low: int, high: int) -> None:
    """Check an optional integer."""
    if name in body and not low <= body[name] <= high:
        raise invalid(name, body[name], f"The value must be an integer from {low} to {high}")


def check_duration(body: Json, name: str, low: str = "PT0S", high: str = INFINITE) -> None:
    """Check an optional duration."""
    # Compare in ticks: a timedelta cannot hold the longest duration of .NET.
    if name in body and not read_ticks(low) <= read_ticks(body[name]) <= read_ticks(high):
        raise invalid(name, body[name], f"The value must be from {low} to {high}")


def without(body: Json, *names: str) -> Json:
    """Return a copy of a body without some properties."""
    return {name: value for name, value in body.items() if name not in names}
