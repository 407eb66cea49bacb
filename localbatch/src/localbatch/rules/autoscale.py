"""The language of autoscale formulas. Formulas are checked when they are set, and evaluated at every interval.

Undocumented syntax is refused, because Azure may refuse it. Where the documentation has gaps, this module decides:
fractions of nodes are cut off, negative targets are zero, Sunday is weekday 0, `TimeInterval_Year` has 365 days, and
division by zero is an error.

https://learn.microsoft.com/azure/batch/batch-automatic-scaling
"""

from __future__ import annotations

import math
import operator
import random
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeAlias

from lark import Lark, Token, Tree, UnexpectedInput, UnexpectedToken
from lark.tree import Meta

from localbatch.account.records import Sample

# Error codes.
SYNTAX_ERROR = "AutoScalingFormulaSyntaxError"
TOO_LONG = "AutoScalingFormulaTooLong"
EVALUATION_ERROR = "AutoScalingFormulaEvaluationError"
INSUFFICIENT_DATA = "InsufficientSampleData"
# The messages of errors whose details are in `values`.
# https://learn.microsoft.com/azure/batch/batch-pool-autoscale-event; the message of evaluation errors was recorded.
MESSAGES: Mapping[str, str] = {
    EVALUATION_ERROR: "The specified auto-scaling formula has evaluation error",
    INSUFFICIENT_DATA: "Autoscale evaluation failed due to insufficient sample data",
}

# Limits of the service.
MAX_FORMULA_CHARACTERS = 8192
MAX_STATEMENTS = 100
SAMPLE_PERIOD = timedelta(seconds=30)

Vector: TypeAlias = tuple[float, ...]
Value: TypeAlias = float | Vector | str | datetime | timedelta
_Node: TypeAlias = Tree[Token]

# A rule with _expression in the grammar is visited by the method of that name in _Evaluator.
_GRAMMAR = r"""
    start: _statement (";" _statement)* ";"?
    _statement: assignment | _expression
    assignment: NAME "=" _expression
    _expression: choice
    ?choice: either | either "?" _expression ":" _expression -> conditional
    ?either: both | either "||" both -> disjunction
    ?both: equality | both "&&" equality -> conjunction
    ?equality: order | equality EQUALITY order -> comparison
    ?order: sum | order ORDER sum -> comparison
    ?sum: product | sum (PLUS | MINUS) product -> arithmetic
    ?product: unary | product (TIMES | DIVIDE) unary -> arithmetic
    ?unary: postfix | MINUS unary -> negation | "!" unary -> inversion
    ?postfix: atom | postfix "." NAME "(" [arguments] ")" -> method | postfix "." NAME -> attribute
    ?atom: NUMBER -> literal | STRING -> string | NAME -> name | call | "(" _expression ")"
    call: NAME "(" [arguments] ")"
    arguments: _expression ("," _expression)*

    EQUALITY: "==" | "!="
    ORDER: "<=" | ">=" | "<" | ">"
    PLUS: "+"
    MINUS: "-"
    TIMES: "*"
    DIVIDE: "/"
    NAME: /\$?[A-Za-z_][A-Za-z0-9_]*/
    NUMBER: /(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
    STRING: /"[^"\n]*"/
    COMMENT: /\/\/[^\n]*|\/\*(.|\n)*?\*\//
    %ignore COMMENT
    %ignore /\s+/
"""
_PARSER = Lark(_GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=True)

# If a formula sets both an alias and its full name, the full name counts.
_ALIASES = {"$TargetDedicated": "$TargetDedicatedNodes", "$TargetLowPriority": "$TargetLowPriorityNodes"}
_TARGETS = {*_ALIASES, *_ALIASES.values()}
_OPTION = "$NodeDeallocationOption"
_OPTIONS = ("requeue", "terminate", "taskcompletion", "retaineddata")
# Service-defined variables, which formulas can only read.
_METRICS = {
    *("$CPUPercent", "$WallClockSeconds", "$MemoryBytes", "$DiskBytes", "$DiskReadBytes", "$DiskWriteBytes"),
    *("$DiskReadOps", "$DiskWriteOps", "$NetworkInBytes", "$NetworkOutBytes", "$SampleNodeCount", "$UsableNodeCount"),
    *("$ActiveTasks", "$RunningTasks", "$PendingTasks", "$SucceededTasks", "$FailedTasks", "$TaskSlotsPerNode"),
    *("$CurrentDedicatedNodes", "$CurrentLowPriorityNodes", "$PreemptedNodeCount"),
}
_CONSTANTS: dict[str, Value] = {
    **{option: option for option in _OPTIONS},
    "TimeInterval_Zero": timedelta(),
    "TimeInterval_100ns": timedelta(microseconds=0.1),  # Zero: finer than a timedelta can be.
    "TimeInterval_Microsecond": timedelta(microseconds=1),
    "TimeInterval_Millisecond": timedelta(milliseconds=1),
    "TimeInterval_Second": timedelta(seconds=1),
    "TimeInterval_Minute": timedelta(minutes=1),
    "TimeInterval_Hour": timedelta(hours=1),
    "TimeInterval_Day": timedelta(days=1),
    "TimeInterval_Week": timedelta(weeks=1),
    "TimeInterval_Year": timedelta(days=365),
}
_TYPE_NAMES: dict[type, str] = {
    float: "double",
    tuple: "doubleVec",
    str: "string",
    datetime: "timestamp",
    timedelta: "timeinterval",
}
# The operators that each pair of types allows.
_ARITHMETIC: dict[tuple[type, type], str] = {
    (float, float): "+-*/",
    (float, timedelta): "*",
    (tuple, float): "+-*/",
    (tuple, tuple): "+-*/",
    (timedelta, float): "*/",
    (timedelta, timedelta): "+-",
    (timedelta, datetime): "+",
    (datetime, timedelta): "+-",
    (datetime, datetime): "-",
}
_OPERATORS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# The members of timestamps.
_MEMBERS: dict[str, Callable[[datetime], int]] = {
    **{name: operator.attrgetter(name) for name in ("year", "month", "day", "hour", "minute", "second")},
    "weekday": lambda at: at.isoweekday() % 7,
    "yearday": lambda at: at.timetuple().tm_yday,
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of a formula; None for what it did not set.

    Attributes:
        results: The values of all variables, in the format of the service.
    """

    target_dedicated_nodes: int | None
    target_low_priority_nodes: int | None
    node_deallocation_option: str | None
    results: str


class FormulaError(Exception):
    """A formula has a syntax error or cannot be evaluated; the message has the line and column."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def check(formula: str) -> None:
    """Check the length, the syntax and the names of a formula, but not its types.

    Raises:
        FormulaError: The formula is too long, has a syntax error or an unknown name.
    """
    _check_names(_parse(formula), SYNTAX_ERROR)


def evaluate(formula: str, now: datetime, metrics: Mapping[str, Sequence[Sample]]) -> Evaluation:
    """Evaluate a formula.

    Args:
        formula: The text of the formula.
        now: The value of `time()`, and the end of time frames.
        metrics: The samples of each service-defined variable, oldest first, by its name without the dollar sign. One
            sample is enough for variables that formulas read as numbers.

    Raises:
        FormulaError: The formula is invalid, or there are not enough samples.
    """
    evaluator = _Evaluator(now, metrics)
    statements = _parse(formula)
    _check_names(statements, EVALUATION_ERROR)
    try:
        for statement in statements:
            evaluator.visit(statement)
    except _StopEvaluation:
        pass
    except RecursionError:
        raise _too_deep() from None
    return evaluator.evaluation()


class _Problem(Exception):  # noqa: N818 - converted into a FormulaError with the position.
    """An error in the part of the formula that is being evaluated."""

    def __init__(self, message: str, code: str = EVALUATION_ERROR) -> None:
        super().__init__(message)
        self.code = code


class _StopEvaluation(Exception):  # noqa: N818 - not an error.
    """The formula called `stop()`."""


# Pools evaluate the same formula every few minutes. The trees are never changed.
@lru_cache(maxsize=64)
def _parse(formula: str) -> list[_Node]:
    """Return the statements of a formula."""
    if len(formula) > MAX_FORMULA_CHARACTERS:
        raise FormulaError(TOO_LONG, f"the formula has {len(formula)} characters, {MAX_FORMULA_CHARACTERS} are allowed")
    try:
        tree = _PARSER.parse(formula)
    except UnexpectedInput as error:
        at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        found = "the end of the formula" if at_end else repr(formula[error.pos_in_stream :].split(maxsplit=1)[0])
        raise _error_at(error, SYNTAX_ERROR, f"syntax error at {found}") from None
    statements = [statement for statement in tree.children if isinstance(statement, Tree)]
    if len(statements) > MAX_STATEMENTS:
        raise FormulaError(TOO_LONG, f"the formula has {len(statements)} statements, {MAX_STATEMENTS} are allowed")
    return statements


def _check_names(statements: Iterable[_Node], code: str) -> None:
    """Check that all names are defined before they are used. Statements run in order, so this needs no evaluation."""
    variables = {*_CONSTANTS, *_METRICS, *_TARGETS, _OPTION}
    known = {"name": variables, "call": _FUNCTIONS, "method": _METHODS, "attribute": _MEMBERS}
    kinds = {"name": "symbol", "call": "function", "method": "method", "attribute": "member"}
    for statement in statements:
        for part in statement.iter_subtrees():
            token = next((child for child in part.children if isinstance(child, Token)), None)
            if token is None:
                continue
            if part.data in known and token not in known[part.data]:
                raise _error_at(token, code, f"Undefined {kinds[part.data]}: {token}")
            if part.data == "assignment" and (token in _METRICS or token in _CONSTANTS):
                raise _error_at(token, code, f"{token} cannot be assigned to")
        if statement.data == "assignment":
            variables.add(str(statement.children[0]))


def _error_at(place: Token | Meta | UnexpectedInput, code: str, message: str) -> FormulaError:
    return FormulaError(code, f"Line {place.line}, Col {place.column}: {message}")


def _too_deep() -> FormulaError:
    return FormulaError(SYNTAX_ERROR, "Line 1, Col 1: the formula is nested too deeply")


@dataclass(frozen=True)
class _Metric:
    """A service-defined variable with its samples. As a number, it is the latest sample."""

    name: str
    samples: Sequence[Sample]
    now: datetime

    def latest(self) -> float:
        return self.last(1)[0]

    def last(self, count: float) -> Vector:
        if count < 1:
            raise _Problem("GetSample needs a count of at least 1")
        if not self.samples:
            raise self._insufficient(100, 0)
        return tuple(float(sample.value) for sample in self.samples[-int(count) :])

    def get_sample(self, first: Value, *others: Value) -> Value:
        if isinstance(first, float) and not others:
            return self.last(first)
        *moments, last = first, *others
        wanted = last if isinstance(last, float) else 0.0
        values, received = self._window(moments if isinstance(last, float) else [*moments, last])
        if not values or received < wanted:
            raise self._insufficient(wanted, received)
        return values

    def get_sample_percent(self, *arguments: Value) -> Value:
        return self._window(arguments)[1]

    def get_sample_period(self) -> Value:
        return SAMPLE_PERIOD

    def count(self) -> Value:
        return float(len(self.samples))

    def history_begin_time(self) -> Value:
        if not self.samples:
            raise self._insufficient(100, 0)
        return self.samples[0].at

    def _window(self, moments: Sequence[Value]) -> tuple[Vector, float]:
        """Return the samples of a time frame, and their percentage of the expected number."""
        instants = [self.now - moment if isinstance(moment, timedelta) else moment for moment in moments]
        edges = [instant for instant in instants if isinstance(instant, datetime)]
        if edges != instants or len(edges) not in {1, 2}:
            raise _Problem("a time frame has one or two limits, each a timeinterval or a timestamp")
        start, end = min(edges), max(edges) if len(edges) > 1 else self.now
        values = tuple(float(sample.value) for sample in self.samples if start < sample.at <= end)
        possible = max(1, (end - start) // SAMPLE_PERIOD)
        return values, min(100.0, 100 * len(values) / possible)

    def _insufficient(self, wanted: float, received: float) -> _Problem:
        return _Problem(
            f"Insufficient data from data set: ${self.name} wanted {wanted:.0f}%, received {received:.0f}%",
            INSUFFICIENT_DATA,
        )


_METHODS: dict[str, Callable[..., Value]] = {
    "GetSample": _Metric.get_sample,
    "GetSamplePercent": _Metric.get_sample_percent,
    "GetSamplePeriod": _Metric.get_sample_period,
    "Count": _Metric.count,
    "HistoryBeginTime": _Metric.history_begin_time,
}


class _Evaluator:
    """Evaluates the statements of a formula, with one method per rule of the grammar."""

    def __init__(self, now: datetime, metrics: Mapping[str, Sequence[Sample]]) -> None:
        self._now = now
        self._metrics = metrics
        self._variables: dict[str, Value] = {}

    def visit(self, node: _Node) -> Value | _Metric:
        try:
            result: Value | _Metric = getattr(self, f"_{node.data}")(*node.children)
        except _Problem as problem:
            raise _error_at(node.meta, problem.code, str(problem)) from None
        except (ArithmeticError, ValueError) as error:
            raise _error_at(node.meta, EVALUATION_ERROR, f"no result: {error}") from None
        return result

    def evaluation(self) -> Evaluation:
        targets = {name: self._target(name, alias) for alias, name in _ALIASES.items()}
        option = self._variables.get(_OPTION)
        shown: dict[str, Value] = {
            name: self._latest(name) if target is None else float(target) for name, target in targets.items()
        }
        shown[_OPTION] = _OPTIONS[0] if option is None else option
        for name in sorted(self._variables.keys() - _TARGETS - {_OPTION}):
            shown[name] = self._variables[name]
        return Evaluation(
            target_dedicated_nodes=targets["$TargetDedicatedNodes"],
            target_low_priority_nodes=targets["$TargetLowPriorityNodes"],
            node_deallocation_option=option if isinstance(option, str) else None,
            results=";".join(f"{name}={_render(value)}" for name, value in shown.items()),
        )

    def _target(self, name: str, alias: str) -> int | None:
        value = self._variables.get(name, self._variables.get(alias))
        return max(0, int(value)) if isinstance(value, float) else None

    def _latest(self, name: str) -> Value:
        samples = self._metrics.get(name[1:])
        return float(samples[-1].value) if samples else 0.0

    def _value(self, node: _Node) -> Value:
        value = self.visit(node)
        return value.latest() if isinstance(value, _Metric) else value

    def _number(self, node: _Node) -> float:
        value = self._value(node)
        if not isinstance(value, float):
            raise _Problem(f"a double is needed here, not a {_type_name(value)}")
        return value

    def _values(self, arguments: _Node | None) -> list[Value]:
        return [self._value(node) for node in arguments.children if isinstance(node, Tree)] if arguments else []

    def _assignment(self, name: Token, expression: _Node) -> Value:
        value = self._value(expression)
        if name in _TARGETS and not (isinstance(value, float) and math.isfinite(value)):
            raise _Problem(f"{name} needs a number of nodes, not {_render(value)}")
        if name == _OPTION and value not in _OPTIONS:
            raise _Problem(f"{name} is one of {', '.join(_OPTIONS)}, not {_render(value)}")
        self._variables[str(name)] = value
        return value

    def _conditional(self, condition: _Node, then: _Node, otherwise: _Node) -> Value:
        # Evaluate one branch only: the condition may test whether there are samples for the other.
        return self._value(then if self._number(condition) else otherwise)

    def _disjunction(self, left: _Node, right: _Node) -> Value:
        return float(bool(self._number(left) or self._number(right)))

    def _conjunction(self, left: _Node, right: _Node) -> Value:
        return float(bool(self._number(left) and self._number(right)))

    def _comparison(self, left: _Node, sign: Token, right: _Node) -> Value:
        one, other = self._value(left), self._value(right)
        if type(one) is not type(other) or isinstance(one, tuple):
            raise _Problem(f"cannot compare {_type_name(one)} {sign} {_type_name(other)}")
        return float(_OPERATORS[sign](one, other))

    def _arithmetic(self, left: _Node, sign: Token, right: _Node) -> Value:
        one, other = self._value(left), self._value(right)
        if sign not in _ARITHMETIC.get((type(one), type(other)), ""):
            raise _Problem(f"cannot compute {_type_name(one)} {sign} {_type_name(other)}")
        if not isinstance(one, tuple):
            result: Value = _OPERATORS[sign](one, other)
            return result
        others = other if isinstance(other, tuple) else (other,) * len(one)
        if len(one) != len(others):
            raise _Problem(f"cannot compute {sign} of vectors of lengths {len(one)} and {len(others)}")
        return tuple(map(_OPERATORS[sign], one, others))

    def _negation(self, _sign: Token, operand: _Node) -> Value:
        value = self._value(operand)
        if not isinstance(value, float | timedelta):
            raise _Problem(f"cannot negate a {_type_name(value)}")
        return -value

    def _inversion(self, operand: _Node) -> Value:
        return float(not self._number(operand))

    def _literal(self, token: Token) -> Value:
        return float(token)

    def _string(self, token: Token) -> Value:
        return token[1:-1]

    def _name(self, name: Token) -> Value | _Metric:
        full = _ALIASES.get(name, str(name))
        for spelling in (str(name), full):
            if spelling in self._variables:
                return self._variables[spelling]
        if full in _CONSTANTS:
            return _CONSTANTS[full]
        if full == _OPTION:
            return _OPTIONS[0]
        return _Metric(full[1:], self._metrics.get(full[1:], ()), self._now)

    def _method(self, owner: _Node, name: Token, arguments: _Node | None) -> Value:
        metric = self.visit(owner)
        if not isinstance(metric, _Metric):
            raise _Problem(f"a {_type_name(metric)} has no samples")
        try:
            return _METHODS[name](metric, *self._values(arguments))
        except TypeError:
            raise _Problem(f"{name} does not take these arguments") from None

    def _attribute(self, owner: _Node, name: Token) -> Value:
        value = self._value(owner)
        if not isinstance(value, datetime):
            raise _Problem(f"a {_type_name(value)} has no member {name}")
        return float(_MEMBERS[name](value))

    def _call(self, name: Token, arguments: _Node | None) -> Value:
        values = self._values(arguments)
        try:
            return self._now if name == "time" and values in ([], [""]) else _FUNCTIONS[name](*values)
        except (TypeError, ValueError):
            raise _Problem(f"{name} does not take these arguments") from None


def _time(text: Value) -> Value:
    """Parse a timestamp in the formats of W3C-DTF or RFC 1123, by default in UTC."""
    if not isinstance(text, str):
        raise TypeError
    if text[:1].isdigit():
        # Python 3.10 parses neither the zone Z nor fractions without three or six digits.
        padded = re.sub(r"\.(\d+)", lambda match: f".{match[1]:0<6.6}", text)
        at = datetime.fromisoformat(padded.replace("Z", "+00:00"))
    else:
        at = parsedate_to_datetime(text)
    return at.astimezone(timezone.utc) if at.tzinfo else at.replace(tzinfo=timezone.utc)


def _stop() -> Value:
    raise _StopEvaluation


def _reducing(function: Callable[[Vector], float]) -> Callable[..., Value]:
    """Return a function of numbers and vectors, which are concatenated to one vector."""
    return lambda *values: float(function(_flat(values)))


def _each(function: Callable[[float], float]) -> Callable[..., Value]:
    """Return a function that applies to a number, or to each number of vectors."""

    def apply(first: Value, *others: Value) -> Value:
        if isinstance(first, float) and not others:
            return float(function(first))
        return tuple(float(function(number)) for number in _flat((first, *others)))

    return apply


def _flat(values: Iterable[Value]) -> Vector:
    numbers: list[float] = []
    for value in values:
        if not isinstance(value, float | tuple):
            raise _Problem(f"a double or a doubleVec is needed here, not a {_type_name(value)}")
        numbers.extend(value if isinstance(value, tuple) else (value,))
    return tuple(numbers)


def _val(vector: Value, index: Value) -> Value:
    (position,) = _flat((index,))
    numbers = _flat((vector,))
    if not 0 <= position < len(numbers):
        raise ValueError
    return numbers[int(position)]


def _percentile(vector: Value, percent: Value) -> Value:
    """Return the nearest-rank percentile."""
    (share,) = _flat((percent,))
    numbers = sorted(_flat((vector,)))
    rank = math.ceil(share / 100 * len(numbers))
    if not numbers or rank > len(numbers):
        raise ValueError
    return numbers[max(rank, 1) - 1]


def _round(number: float) -> float:
    """Round to the nearest integer, and halves away from zero."""
    return math.copysign(math.floor(abs(number) + 0.5), number)


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "avg": _reducing(statistics.fmean),
    "ceil": _each(math.ceil),
    "floor": _each(math.floor),
    "len": _reducing(len),
    "lg": _each(math.log2),
    "ln": _each(math.log),
    "log": _each(math.log10),
    "max": _reducing(max),
    "min": _reducing(min),
    "norm": _reducing(lambda vector: math.hypot(*vector)),
    "percentile": _percentile,
    "rand": lambda: random.random(),  # noqa: PLW0108, S311 - a formula may not pass arguments; not for secrets.
    "range": _reducing(lambda vector: max(vector) - min(vector)),
    "round": _each(_round),
    "std": _reducing(statistics.stdev),
    "stop": _stop,
    "sum": _reducing(math.fsum),
    "time": _time,
    "val": _val,
}


def _type_name(value: Value | _Metric) -> str:
    return "variable with samples" if isinstance(value, _Metric) else _TYPE_NAMES[type(value)]


def _render(value: Value) -> str:
    """Format a value as in the results of the service."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, tuple):
        return f"[{','.join(map(_render, value))}]"
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"
    return str(value)
