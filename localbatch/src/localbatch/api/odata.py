"""The query options $filter, $select and $expand.

https://learn.microsoft.com/azure/batch/batch-efficient-list-queries
https://learn.microsoft.com/rest/api/batchservice/odata-filters-in-batch
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias

import lark

from localbatch import errors
from localbatch.account.specs import Json


class Field(NamedTuple):
    """A property for filters: its type, and the function that reads it from a record."""

    kind: type
    read: Callable[[Any], Any]


Fields: TypeAlias = Mapping[str, Field]
Predicate: TypeAlias = Callable[[Any], bool]


def _field(kind: type, path: str) -> Field:
    names = path.split(".")
    if len(names) == 1:
        return Field(kind, operator.attrgetter(path))

    def read(record: Any) -> Any:
        for name in names:
            record = getattr(record, name, None)
        return record

    return Field(kind, read)


def _json_field(kind: type, path: str) -> Field:
    def read(record: Any) -> Any:
        for name in path.split("/"):
            record = record.get(name) if record else None
        return datetime.fromisoformat(record[:26] + "+00:00") if kind is datetime and record else record

    return Field(kind, read)


# The REST reference lists the properties of each kind of record that filters may use.
POOLS: Fields = {
    "id": _field(str, "id"),
    "state": _field(str, "state"),
    "stateTransitionTime": _field(datetime, "state_at"),
    "allocationState": _field(str, "allocation.state"),
    "allocationStateTransitionTime": _field(datetime, "allocation.state_at"),
    "creationTime": _field(datetime, "created_at"),
    "lastModified": _field(datetime, "modified_at"),
    "enableAutoScale": Field(bool, lambda pool: pool.spec["enableAutoScale"]),
    "enableInterNodeCommunication": Field(bool, lambda pool: pool.spec["enableInterNodeCommunication"]),
    "vmSize": Field(str, lambda pool: pool.spec["vmSize"]),
}
NODES: Fields = {
    "id": _field(str, "id"),
    "state": _field(str, "state"),
    "stateTransitionTime": _field(datetime, "state_at"),
    "lastBootTime": _field(datetime, "booted_at"),
    "allocationTime": _field(datetime, "allocated_at"),
    "startTaskInfo/state": _field(str, "start_task.state"),
    "startTaskInfo/result": _field(str, "start_task.execution.result"),
    "startTaskInfo/exitCode": _field(int, "start_task.execution.exit_code"),
    "startTaskInfo/startTime": _field(datetime, "start_task.execution.started_at"),
    "startTaskInfo/endTime": _field(datetime, "start_task.execution.ended_at"),
}
JOBS: Fields = {
    "id": _field(str, "id"),
    "state": _field(str, "state"),
    "stateTransitionTime": _field(datetime, "state_at"),
    "creationTime": _field(datetime, "created_at"),
    "lastModified": _field(datetime, "modified_at"),
    "executionInfo/startTime": _field(datetime, "created_at"),
    "executionInfo/endTime": _field(datetime, "ended_at"),
    "executionInfo/poolId": _field(str, "pool_id"),
}
JOB_SCHEDULES: Fields = {
    "id": _field(str, "id"),
    "state": _field(str, "state"),
    "stateTransitionTime": _field(datetime, "state_at"),
    "creationTime": _field(datetime, "created_at"),
    "lastModified": _field(datetime, "modified_at"),
}
TASKS: Fields = {
    "id": _field(str, "id"),
    "state": _field(str, "state"),
    "stateTransitionTime": _field(datetime, "state_at"),
    "creationTime": _field(datetime, "created_at"),
    "lastModifiedTime": Field(datetime, lambda task: task.modified_at or task.created_at),
    "lastModified": Field(datetime, lambda task: task.modified_at or task.created_at),
    "executionInfo/startTime": _field(datetime, "execution.started_at"),
    "executionInfo/endTime": _field(datetime, "execution.ended_at"),
    "executionInfo/exitCode": _field(int, "execution.exit_code"),
    "executionInfo/result": _field(str, "execution.result"),
}
FILES: Fields = {"name": _json_field(str, "name")}
IMAGES: Fields = {name: _json_field(str, name) for name in ("osType", "verificationType", "nodeAgentSKUId")}
NODE_COUNTS: Fields = {"poolId": _field(str, "id")}
PREPARATIONS: Fields = {
    "poolId": _json_field(str, "poolId"),
    "nodeId": _json_field(str, "nodeId"),
    **{
        f"job{task}TaskExecutionInfo/{name}": _json_field(kind, f"job{task}TaskExecutionInfo/{name}")
        for task in ("Preparation", "Release")
        for name, kind in {
            "state": str,
            "startTime": datetime,
            "endTime": datetime,
            "exitCode": int,
            "result": str,
        }.items()
    },
}

# The subset of OData that Batch documents: no arithmetic, no functions but startswith.
_GRAMMAR = r"""
?start: either
?either: both ("or" both)*
?both: factor ("and" factor)*
?factor: "(" either ")" | "not" factor -> negation | "startswith" "(" PATH "," value ")" -> startswith
       | PATH OPERATOR value -> comparison
?value: "DateTime"i STRING -> instant | STRING -> text | INTEGER -> number | BOOLEAN -> flag
PATH: /[A-Za-z][A-Za-z]*(\/[A-Za-z]+)*/
OPERATOR: "eq" | "ne" | "ge" | "gt" | "le" | "lt"
BOOLEAN.2: /(true|false)\b/
STRING: /'([^']|'')*'/
INTEGER: /-?\d+/
%ignore /\s+/
"""


@functools.cache
def _parser() -> lark.Lark:
    return lark.Lark(_GRAMMAR, parser="lalr")


class _Build(lark.Transformer[Any, Any]):
    """Transforms the syntax tree of a filter into a predicate on records."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self._fields = fields

    def _field(self, path: str) -> Field:
        if path not in self._fields:
            raise ValueError(f"{path} is not a property for filters")
        return self._fields[path]

    # The methods are named after the rules of the grammar, and receive the transformed parts of the rule.
    def either(self, predicates: list[Predicate]) -> Predicate:
        if len(predicates) == 2:  # noqa: PLR2004 - faster for the usual number of operands.
            left, right = predicates
            return lambda record: left(record) or right(record)
        return lambda record: any(predicate(record) for predicate in predicates)

    def both(self, predicates: list[Predicate]) -> Predicate:
        if len(predicates) == 2:  # noqa: PLR2004 - as above.
            left, right = predicates
            return lambda record: left(record) and right(record)
        return lambda record: all(predicate(record) for predicate in predicates)

    def negation(self, predicates: list[Predicate]) -> Predicate:
        return lambda record: not predicates[0](record)

    def startswith(self, parts: list[Any]) -> Predicate:
        field, prefix = self._field(parts[0]), parts[1]
        if field.kind is not str or not isinstance(prefix, str):
            raise ValueError(f"{parts[0]} is not a string")
        # String comparisons ignore case; `text` has already folded the literal.
        return lambda record: (field.read(record) or "").lower().startswith(prefix)

    def comparison(self, parts: list[Any]) -> Predicate:
        field, compare, value = self._field(parts[0]), getattr(operator, parts[1]), parts[2]
        # Clients may omit the prefix DateTime of a literal.
        if field.kind is datetime and isinstance(value, str):
            value = read_instant(value)
        # Not isinstance: a bool is an int in Python, but not in OData.
        if type(value) is not field.kind:
            raise ValueError(f"{parts[0]} cannot be compared with {value!r}")

        def matches(record: Any) -> bool:
            found = field.read(record)
            if found is None:  # A missing property differs from every value.
                return compare is operator.ne
            return bool(compare(found.lower() if isinstance(found, str) else found, value))

        return matches

    def instant(self, parts: list[str]) -> datetime:
        return read_instant(self.text(parts))

    def text(self, parts: list[str]) -> str:
        # OData escapes a quote in a string by doubling it.
        return parts[0][1:-1].replace("''", "'").lower()

    def number(self, parts: list[str]) -> int:
        return int(parts[0])

    def flag(self, parts: list[str]) -> bool:
        return parts[0] == "true"


def read_instant(text: str) -> datetime:
    """Parse an instant of a client, which may be in the format of headers.

    Raises:
        ValueError: The text is not an instant.
    """
    try:
        at = datetime.fromisoformat(_microseconds(text.upper().replace("Z", "+00:00")))
    except ValueError:
        at = parsedate_to_datetime(text)
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def _microseconds(text: str) -> str:
    """Shorten fractions of seconds to six digits, because Python 3.10 cannot parse seven."""
    head, dot, tail = text.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    return head + dot + digits[:6].ljust(6, "0") * bool(dot) + tail[len(digits) :]


def read_filter(text: str | None, fields: Fields) -> Predicate:
    """Parse a $filter into a predicate. Without a filter, every record matches.

    Raises:
        ServiceError: InvalidQueryParameterValue: a syntax error or an unknown property.
    """
    if not text:
        return lambda _record: True
    try:
        predicate: Predicate = _Build(fields).transform(_parser().parse(text))
    # Errors of _Build arrive wrapped; syntax errors have their position in the first line.
    except lark.exceptions.VisitError as error:
        reason = str(error.orig_exc)
    except lark.exceptions.LarkError as error:
        reason = str(error).partition("\n")[0]
    else:
        return predicate
    raise errors.invalid_query_parameter_value(QueryParameterName="$filter", QueryParameterValue=text, Reason=reason)


def read_select(text: str | None, known: Collection[str]) -> Callable[[Json], Json]:
    """Parse a $select into a function that keeps the selected properties. A path selects its whole first property.

    Raises:
        ServiceError: InvalidQueryParameterValue: an unknown property.
    """
    if not text:
        return lambda body: body
    names = {name.strip().partition("/")[0] for name in text.split(",")}
    unknown = names - set(known)
    if unknown:
        reason = f"{', '.join(sorted(unknown))} is not a property for $select"
        raise errors.invalid_query_parameter_value(
            QueryParameterName="$select", QueryParameterValue=text, Reason=reason
        )
    return lambda body: {name: value for name, value in body.items() if name in names}


def check_expand(text: str | None) -> None:
    """Raise InvalidQueryParameterValue unless an $expand is `stats`. Responses have no statistics."""
    if text and text.strip() != "stats":
        raise errors.invalid_query_parameter_value(
            QueryParameterName="$expand", QueryParameterValue=text, Reason="Only stats is supported"
        )
