from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from localbatch.account.records import Sample
from localbatch.rules.autoscale import EVALUATION_ERROR, FormulaError, check, evaluate

# A Tuesday.
NOW = datetime(2026, 11, 24, 13, 0, 30, 250_000, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)


def samples(*values: float, newest: datetime = NOW, period: timedelta = 30 * SECOND) -> list[Sample]:
    """Return samples with these values, oldest first."""
    return [
        Sample(newest - period * age, value) for age, value in zip(range(len(values) - 1, -1, -1), values, strict=True)
    ]


def value_of(expression: str, **metrics: list[Sample]) -> str:
    """Evaluate one expression and return it as it is reported."""
    return evaluate(f"x = {expression};", NOW, metrics).results.rpartition(";x=")[2]


def refusal_of(formula: str, **metrics: list[Sample]) -> FormulaError:
    with pytest.raises(FormulaError) as refusal:
        evaluate(formula, NOW, metrics)
    return refusal.value


# The formulas of the documentation.

PENDING_TASKS = """
startingNumberOfVMs = 1;
maxNumberofVMs = 25;
pendingTaskSamplePercent = $PendingTasks.GetSamplePercent(180 * TimeInterval_Second);
pendingTaskSamples = pendingTaskSamplePercent < 70 ? startingNumberOfVMs : avg($PendingTasks.GetSample(180 * TimeInterval_Second));
$TargetDedicatedNodes=min(maxNumberofVMs, pendingTaskSamples);
$NodeDeallocationOption = taskcompletion;
"""

PREEMPTED_NODES = """
maxNumberofVMs = 25;
$TargetDedicatedNodes = min(maxNumberofVMs, $PreemptedNodeCount.GetSample(180 * TimeInterval_Second));
$TargetLowPriorityNodes = min(maxNumberofVMs , maxNumberofVMs - $TargetDedicatedNodes);
$NodeDeallocationOption = taskcompletion;
"""

PROCESSOR_USE = """
$totalDedicatedNodes =
    (min($CPUPercent.GetSample(TimeInterval_Minute * 10)) > 0.7) ?
    ($CurrentDedicatedNodes * 1.1) : $CurrentDedicatedNodes;
$totalDedicatedNodes =
    (avg($CPUPercent.GetSample(TimeInterval_Minute * 60)) < 0.2) ?
    ($CurrentDedicatedNodes * 0.9) : $totalDedicatedNodes;
$TargetDedicatedNodes = min(400, $totalDedicatedNodes)
"""

WORKING_HOURS = """
$curTime = time();
$workHours = $curTime.hour >= 8 && $curTime.hour < 18;
$isWeekday = $curTime.weekday >= 1 && $curTime.weekday <= 5;
$isWorkingWeekdayHour = $workHours && $isWeekday;
$TargetDedicatedNodes = $isWorkingWeekdayHour ? 20:10;
$NodeDeallocationOption = taskcompletion;
"""

QUEUED_TASKS = """
// Get pending tasks for the past 15 minutes.
$samples = $PendingTasks.GetSamplePercent(TimeInterval_Minute * 15);
/* If we have fewer than 70 percent data points, we use the last sample point,
   otherwise the maximum of last sample point and the history average. */
$tasks = $samples < 70 ? max(0,$PendingTasks.GetSample(1)) : max( $PendingTasks.GetSample(1), avg($PendingTasks.GetSample(TimeInterval_Minute * 15)));
$targetVMs = $tasks > 0? $tasks:max(0, $TargetDedicatedNodes/2);
$TargetDedicatedNodes = max(0, min($targetVMs, 20));
$NodeDeallocationOption = taskcompletion;
"""

PARALLEL_TASKS = """
$samples = $ActiveTasks.GetSamplePercent(TimeInterval_Minute * 15);
$tasks = $samples < 70 ? max(0,$ActiveTasks.GetSample(1)) : max( $ActiveTasks.GetSample(1),avg($ActiveTasks.GetSample(TimeInterval_Minute * 15)));
$cores = $TargetDedicatedNodes * 4;
$extraVMs = (($tasks - $cores) + 3) / 4;
$targetVMs = ($TargetDedicatedNodes + $extraVMs);
$TargetDedicatedNodes = max(0,min($targetVMs,3));
$NodeDeallocationOption = taskcompletion;
"""

INITIAL_SIZE = """
$TargetDedicatedNodes = 4;
lifespan         = time() - time("Tue, 24 Nov 2026 12:00:00 GMT");
span             = TimeInterval_Minute * 60;
startup          = TimeInterval_Minute * 10;
ratio            = 50;
$TargetDedicatedNodes = (lifespan > startup ? (max($RunningTasks.GetSample(span, ratio), $ActiveTasks.GetSample(span, ratio)) == 0 ? 0 : $TargetDedicatedNodes) : 4);
"""

# This project's own.
RUN = """
slots = 4;
ceiling = 2;
waiting = $PendingTasks.GetSamplePercent(TimeInterval_Minute * 5) < 70 ? max($PendingTasks.GetSample(1)) : max($PendingTasks.GetSample(TimeInterval_Minute * 5));
wanted = min(ceiling, ceil(waiting / slots));
$TargetDedicatedNodes = time() >= time("2026-11-24T15:00:00Z") ? 0 : (time() < time("2026-11-24T12:10:00Z") ? ceiling : wanted);
$NodeDeallocationOption = taskcompletion;
"""

LOW, HIGH = [0.1] * 120, [0.8] * 120


@pytest.mark.parametrize(
    ("formula", "metrics", "dedicated", "low_priority"),
    [
        pytest.param(PENDING_TASKS, {"PendingTasks": samples(9, 9)}, 1, None, id="pending tasks, too few samples"),
        pytest.param(PENDING_TASKS, {"PendingTasks": samples(1, 2, 3, 4, 5, 6)}, 3, None, id="pending tasks, average"),
        pytest.param(PENDING_TASKS, {"PendingTasks": samples(*[90] * 9)}, 25, None, id="pending tasks, at most"),
        pytest.param(PREEMPTED_NODES, {"PreemptedNodeCount": samples(7)}, 7, 18, id="preempted nodes"),
        pytest.param(
            PROCESSOR_USE,
            {"CPUPercent": samples(*HIGH), "CurrentDedicatedNodes": samples(10)},
            11,
            None,
            id="processors busy",
        ),
        pytest.param(
            PROCESSOR_USE,
            {"CPUPercent": samples(*LOW), "CurrentDedicatedNodes": samples(10)},
            9,
            None,
            id="processors idle",
        ),
        pytest.param(WORKING_HOURS, {}, 20, None, id="working hours"),
        pytest.param(
            QUEUED_TASKS, {"PendingTasks": samples(0), "TargetDedicatedNodes": samples(6)}, 3, None, id="nothing queued"
        ),
        pytest.param(QUEUED_TASKS, {"PendingTasks": samples(*[4, 8] * 15)}, 8, None, id="queued tasks, the latest"),
        pytest.param(QUEUED_TASKS, {"PendingTasks": samples(*[9, 3] * 15)}, 6, None, id="queued tasks, the average"),
        pytest.param(
            PARALLEL_TASKS,
            {"ActiveTasks": samples(5), "TargetDedicatedNodes": samples(1)},
            2,
            None,
            id="parallel tasks",
        ),
        pytest.param(
            INITIAL_SIZE,
            {"RunningTasks": samples(*[0] * 60), "ActiveTasks": samples(*[0] * 60)},
            0,
            None,
            id="initial size, nothing to do",
        ),
        pytest.param(
            INITIAL_SIZE,
            {"RunningTasks": samples(*[0] * 60), "ActiveTasks": samples(*[0, 1] * 30)},
            4,
            None,
            id="initial size, kept",
        ),
        pytest.param(RUN, {"PendingTasks": samples(3)}, 1, None, id="run, few samples"),
        pytest.param(RUN, {"PendingTasks": samples(*[9] * 5, *[0] * 5)}, 2, None, id="run, the most that waited"),
        pytest.param(RUN, {"PendingTasks": samples(*[0] * 10)}, 0, None, id="run, nothing waits"),
    ],
)
def test_formulas_decide_as_described(formula, metrics, dedicated, low_priority):
    check(formula)

    evaluation = evaluate(formula, NOW, metrics)

    assert evaluation.target_dedicated_nodes == dedicated
    assert evaluation.target_low_priority_nodes == low_priority


@pytest.mark.parametrize(("hour", "dedicated"), [(12, 2), (14, 1), (15, 0), (16, 0)])
def test_deadline_formula_empties_the_pool(hour, dedicated):
    now = NOW.replace(hour=hour, minute=0, second=0, microsecond=0)

    assert evaluate(RUN, now, {"PendingTasks": samples(1, newest=now)}).target_dedicated_nodes == dedicated


def test_results_name_all_variables():
    evaluation = evaluate(WORKING_HOURS, NOW, {})

    assert evaluation.node_deallocation_option == "taskcompletion"
    assert evaluation.results == (
        "$TargetDedicatedNodes=20;$TargetLowPriorityNodes=0;$NodeDeallocationOption=taskcompletion;"
        "$curTime=2026-11-24T13:00:30.250Z;$isWeekday=1;$isWorkingWeekdayHour=1;$workHours=1"
    )


def test_unset_targets_stay():
    evaluation = evaluate("spare = 1", NOW, {"TargetDedicatedNodes": samples(3)})

    assert evaluation.target_dedicated_nodes is None
    assert evaluation.node_deallocation_option is None
    assert evaluation.results.startswith(
        "$TargetDedicatedNodes=3;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue"
    )


@pytest.mark.parametrize(
    ("formula", "dedicated"),
    [
        ("$TargetDedicatedNodes = 2.9", 2),
        ("$TargetDedicatedNodes = 0.5", 0),
        ("$TargetDedicatedNodes = -3", 0),
        ("$TargetDedicated = 4", 4),
        ("$TargetDedicatedNodes = 5; $TargetDedicated = 4", 5),
        ("$TargetDedicatedNodes = 5; $TargetDedicatedNodes = $TargetDedicated + 1", 6),
        ("$TargetDedicatedNodes = 5; stop(); $TargetDedicatedNodes = 6", 5),
    ],
)
def test_targets_are_whole_and_not_negative(formula, dedicated):
    assert evaluate(formula, NOW, {}).target_dedicated_nodes == dedicated


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("(1 + 2) * 3", "9"),
        ("7 - 2 - 1", "4"),
        ("-2 * -3", "6"),
        ("1e3 + .5", "1000.5"),
        ("1 < 2 && 2 <= 2", "1"),
        ("1 > 2 || 2 != 2", "0"),
        ("1 || 0 && 0", "1"),
        ("!0 + !5", "1"),
        ("0 ? 1 : 0 ? 2 : 3", "3"),
        ('"b" > "a"', "1"),
        ("taskcompletion == requeue", "0"),
        ("max(1, $V, 2)", "3"),
        ("min(1, $V.GetSample(3), -2)", "-2"),
        ("sum($V.GetSample(2), 10)", "15"),
        ("avg($V.GetSample(3))", "2"),
        ("std($V.GetSample(3))", "1"),
        ("len($V.GetSample(9), 1)", "4"),
        ("len()", "0"),
        ("range($V.GetSample(3))", "2"),
        ("norm(3, 4)", "5"),
        ("val($V.GetSample(3), 1)", "2"),
        ("percentile($V.GetSample(3), 50)", "2"),
        ("percentile($V.GetSample(3), 0)", "1"),
        ("percentile($V.GetSample(3), 100)", "3"),
        ("lg(8) + ln(1) + log(100)", "5"),
        ("lg($V.GetSample(2) * 0 + 2)", "[1,1]"),
        ("ceil(0.1) + floor(1.9)", "2"),
        ("round(2.5)", "3"),
        ("round(-2.5)", "-3"),
        ("rand() < 1", "1"),
        ("$V.GetSample(2) + $V.GetSample(2)", "[4,6]"),
        ("$V.GetSample(2) / 2", "[1,1.5]"),
        ("$V.Count()", "3"),
        ("$V.GetSamplePeriod() == 30 * TimeInterval_Second", "1"),
        ("$V.HistoryBeginTime()", "2026-11-24T12:59:30.250Z"),
        ("$V.GetSamplePercent(TimeInterval_Minute * 2)", "75"),
        ("$V.GetSamplePercent(TimeInterval_Minute, TimeInterval_Minute * 2)", "50"),
        ("$V.GetSample(TimeInterval_Minute * 2, 75)", "[1,2,3]"),
        ("$V.GetSample(TimeInterval_Second, TimeInterval_Second * 31)", "[2]"),
        ("$V.GetSample(TimeInterval_Second * 31, TimeInterval_Second, 100)", "[2]"),
        ('$V.GetSample(time("2026-11-24T13:00:00Z"))', "[2,3]"),
        ("TimeInterval_Day / 2 == 12 * TimeInterval_Hour", "1"),
        ("TimeInterval_Week - 7 * TimeInterval_Day + TimeInterval_Zero", "0:00:00"),
        ("-TimeInterval_Hour < TimeInterval_Zero", "1"),
        ("time() + -1 * TimeInterval_Day", "2026-11-23T13:00:30.250Z"),
        ("TimeInterval_Year + time()", "2027-11-24T13:00:30.250Z"),
        ('time("2026-11-24T14:00:00.1234567+01:00")', "2026-11-24T13:00:00.123Z"),
        ('time("Tue, 24 Nov 2026 13:00:00 GMT") == time("2026-11-24T13:00:00")', "1"),
        ('time("").year', "2026"),
        ("time().month + time().day * 100", "2411"),
        ("time().minute + time().second * 100", "3000"),
        ("time().weekday * 1000 + time().yearday", "2328"),
        ('time("2026-11-22").weekday', "0"),
    ],
)
def test_expressions(expression, expected):
    metric = {"CPUPercent": samples(1, 2, 3)}

    assert value_of(expression.replace("$V", "$CPUPercent"), **metric) == expected


@pytest.mark.parametrize(
    ("formula", "code", "message"),
    [
        ("", "AutoScalingFormulaSyntaxError", "syntax error at the end of the formula"),
        ("x = 1;;", "AutoScalingFormulaSyntaxError", "Line 1, Col 7: syntax error at ';'"),
        ("x = 1;\ny = (2", "AutoScalingFormulaSyntaxError", "Line 2, Col 6: syntax error at the end of the formula"),
        ("x = 1 +* 2", "AutoScalingFormulaSyntaxError", "Line 1, Col 8: syntax error at '*'"),
        ("x = #", "AutoScalingFormulaSyntaxError", "Line 1, Col 5: syntax error at '#'"),
        ("$x", EVALUATION_ERROR, "Line 1, Col 1: Undefined symbol: $x"),
        ("x = y; y = 1", EVALUATION_ERROR, "Line 1, Col 5: Undefined symbol: y"),
        ("x = x", EVALUATION_ERROR, "Line 1, Col 5: Undefined symbol: x"),
        ("x = 1;\nz = $Unknown", EVALUATION_ERROR, "Line 2, Col 5: Undefined symbol: $Unknown"),
        ("x = sqrt(4)", EVALUATION_ERROR, "Line 1, Col 5: Undefined function: sqrt"),
        ("x = $RunningTasks.Last()", EVALUATION_ERROR, "Line 1, Col 19: Undefined method: Last"),
        ("x = time().millisecond", EVALUATION_ERROR, "Line 1, Col 12: Undefined member: millisecond"),
        ("$PendingTasks = 1", EVALUATION_ERROR, "Line 1, Col 1: $PendingTasks cannot be assigned to"),
        ("x = " + "-" * 5000 + "1", "AutoScalingFormulaSyntaxError", "Line 1, Col 1: the formula is nested too deeply"),
        ("x = 1" + " " * 8188, "AutoScalingFormulaTooLong", "the formula has 8193 characters, 8192 are allowed"),
        ("x = 1;" * 101, "AutoScalingFormulaTooLong", "the formula has 101 statements, 100 are allowed"),
        ("x = 1 + requeue", EVALUATION_ERROR, "Line 1, Col 5: cannot compute double + string"),
        ("x = time() == 1", EVALUATION_ERROR, "Line 1, Col 5: cannot compare timestamp == double"),
        ("x = time() ? 1 : 2", EVALUATION_ERROR, "Line 1, Col 5: a double is needed here, not a timestamp"),
        (
            "x = TimeInterval_Day / TimeInterval_Day",
            EVALUATION_ERROR,
            "cannot compute timeinterval / timeinterval",
        ),
        ("x = -requeue", EVALUATION_ERROR, "Line 1, Col 5: cannot negate a string"),
        ("x = 1 / 0", EVALUATION_ERROR, "Line 1, Col 5: no result: float division by zero"),
        ("x = TimeInterval_Day * (1e999 - 1e999)", EVALUATION_ERROR, "Line 1, Col 5: no result: "),
        ("x = TimeInterval_Year * 1e9", EVALUATION_ERROR, "Line 1, Col 5: no result: "),
        ("x = 2 * 3;\ny = x.GetSample(1)", EVALUATION_ERROR, "Line 2, Col 5: a double has no samples"),
        ("x = max()", EVALUATION_ERROR, "Line 1, Col 5: max does not take these arguments"),
        ("x = max(time())", EVALUATION_ERROR, "a double or a doubleVec is needed here, not a timestamp"),
        ("x = rand(1)", EVALUATION_ERROR, "Line 1, Col 5: rand does not take these arguments"),
        ('x = time("soon")', EVALUATION_ERROR, "Line 1, Col 5: time does not take these arguments"),
        ("x = requeue.hour", EVALUATION_ERROR, "Line 1, Col 5: a string has no member hour"),
        (
            "$TargetDedicatedNodes = requeue",
            EVALUATION_ERROR,
            "$TargetDedicatedNodes needs a number of nodes",
        ),
        ("$TargetDedicatedNodes = 1e308 * 10", EVALUATION_ERROR, "needs a number of nodes, not inf"),
        ("$NodeDeallocationOption = 1", EVALUATION_ERROR, "retaineddata, not 1"),
        ("x = $CPUPercent.GetSample(0)", EVALUATION_ERROR, "GetSample needs a count of at least 1"),
        ("x = $CPUPercent.GetSample()", EVALUATION_ERROR, "GetSample does not take these arguments"),
        ("x = $CPUPercent.GetSample(requeue)", EVALUATION_ERROR, "a time frame has one or two limits"),
    ],
)
def test_formula_errors_have_positions(formula, code, message):
    refusal = refusal_of(formula)

    assert refusal.code == code
    assert message in refusal.message


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("$PendingTasks.GetSample(1)", "$PendingTasks wanted 100%, received 0%"),
        ("$CurrentDedicatedNodes + 1", "$CurrentDedicatedNodes wanted 100%, received 0%"),
        ("$PendingTasks.HistoryBeginTime()", "$PendingTasks wanted 100%, received 0%"),
        (
            "$RunningTasks.GetSample(TimeInterval_Minute, 2 * TimeInterval_Minute)",
            "$RunningTasks wanted 0%, received 0%",
        ),
        ("$RunningTasks.GetSample(TimeInterval_Minute * 5, 50)", "$RunningTasks wanted 50%, received 20%"),
    ],
)
def test_missing_samples_stop_evaluation(expression, message):
    refusal = refusal_of(f"x = 1;\ny = {expression};", RunningTasks=samples(1, 1))

    assert refusal.code == "InsufficientSampleData"
    assert refusal.message.startswith("Line 2, Col 5: Insufficient data from data set: ")
    assert refusal.message.endswith(message)


def test_only_the_taken_branch_is_evaluated():
    assert value_of("$PendingTasks.Count() > 0 ? $PendingTasks.GetSample(1) : 7") == "7"
    assert value_of("0 && $PendingTasks.GetSample(1)") == "0"
    assert value_of("1 || $PendingTasks.GetSample(1)") == "1"


def test_check_needs_no_samples():
    check("$TargetDedicatedNodes = max($PendingTasks.GetSample(1));")


def test_check_covers_unreached_branches():
    with pytest.raises(FormulaError, match=r"AutoScalingFormulaSyntaxError: .* Undefined function: sqrt"):
        check("x = 1 ? 2 : sqrt(4)")
