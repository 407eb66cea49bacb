"""What must hold after every history, whatever happened in it."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256

from simulation.history import KEYS, Life, Outcome
from simulation.plan import Plan
from simulation.wire import secrets_in
from tasks.model.verdict import FileReport
from tasks.report.model import RunReport
from tasks.steps.start import MIN_TIME_LEFT
from tasks.workload.word_counts import WordCounts, counts_of

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

# Words of a program and not of a person: no reason that anybody is told has them.
NOT_A_REASON = re.compile(
    r"Traceback|UnfinishedRun|JSONDecodeError|KeyError|TypeError|AttributeError|Expecting value|PENDING state|object at 0x"
)

# What can take a Batch task or a whole run down, so that good files may fail; with it, a reason of one of the kinds is true.
TAKES_DOWN = {
    # Whose Batch tasks were not added yet hears of it when they are.
    "terminate_job": {"cancelled", "node"},
    "delete_job": {"cancelled", "node"},
    "disable_job": {"cancelled", "wall_clock"},
    "pause_job": {"cancelled", "wall_clock"},
    "delete_pool": {"node", "cancelled"},
    "terminate_task": {"cancelled"},
    "start_task_fails": {"node", "wall_clock", "cancelled"},
    "allocation_fails": {"node", "wall_clock", "cancelled"},
    "endless_task": {"wall_clock", "cancelled"},
    "upload_fails": {"upload"},
    "make_node_unusable": {"node", "wall_clock", "cancelled"},
    "lose_node": {"wall_clock", "cancelled"},
    "preempt_node": {"wall_clock", "cancelled"},
    "vanish_node": {"wall_clock", "cancelled"},
    "wire outage": {"node", "resource_file", "upload", "cancelled", "wall_clock"},
}

# What makes a node work on a content again, each time at most once for each content.
REPEATS = {
    "preempt_node",
    "make_node_unusable",
    "lose_node",
    "vanish_node",
    "upload_fails",
    "pause_job",
    "disable_job",
    "delete_job",
    "terminate_job",
    "delete_pool",
    "delete_task",
    "start_task_fails",
}

# Requests that fail are repeated for a minute each, and a run has some to do after its deadline.
GRACE_MINUTES = 20.0

# What takes down only the attempt that it happens in.
ENDS_ONE_ATTEMPT = {"terminate_job", "delete_job", "delete_pool"}

# With this much time, a pool that gets no nodes for a day is no reason.
PATIENT_MINUTES = 1000.0

# A short deadline is a reason, too.
SHORT_MINUTES = 20.0


def broken(outcome: Outcome) -> list[str]:
    """List each invariant that does not hold, in a sentence."""
    return [sentence for check in CHECKS for sentence in check(outcome)]


def every_file_has_its_result_or_a_true_reason(outcome: Outcome) -> Iterator[str]:
    """A result is that of the file's content; a reason is one of what was made to happen to this file or to all."""
    for life in outcome.lives:
        if not life.report:
            continue
        names = [file.file.name for file in life.report.files]
        if len(names) != len(set(names)):
            yield f"a file is reported twice: {names}"
        for file in life.report.files:
            yield from _file(outcome, life, file)


def _file(outcome: Outcome, life: Life, file: FileReport) -> Iterator[str]:
    spec = next(spec for spec in outcome.plan.files if _matches(spec.name, file.file.name))
    contents = [content for content in outcome.contents[spec.name] if content or spec.content == b""]
    if file.result is not None:
        yield from _result(outcome.plan, spec.name, contents, file.file.sha256, counts_of(file.result))
        return
    if file.error is None:
        yield f"{spec.name} has neither a result nor an error"
        return
    category, message = file.error.category.value, file.error.message
    if NOT_A_REASON.search(message):
        yield f"{spec.name} failed for no reason that a person can read: {message}"
    bad = any(_text(content) is None for content in contents)
    if bad and category == "input" and "offset" in message:
        return
    if bad and category == "program" and outcome.fired.get("upload_fails"):
        # What the program said was not uploaded either.
        return
    changed = outcome.fired.get(f"file {spec.fate}", 0) > 0
    if changed and category == "input" and ("changed" in message or "cannot be read" in message):
        return
    if category not in excuses(outcome, life):
        yield f"{spec.name} failed without a cause [{category}]: {message}"


def _result(plan: Plan, name: str, contents: list[bytes], digest: str, counts: WordCounts) -> Iterator[str]:
    content = {sha256(content).hexdigest(): content for content in contents}.get(counts.sha256)
    if content is None or counts.sha256 != digest:
        yield f"{name} has the result of another content"
    elif (text := _text(content)) is None:
        yield f"{name} is not text and has a result"
    elif (counts.words, counts.distinct, [list(pair) for pair in counts.top]) != count(text, plan):
        yield f"{name} is counted wrongly: {counts}"


def excuses(outcome: Outcome, life: Life) -> set[str]:
    """Kinds of reasons for which any file may have failed, after what was made to happen."""
    is_patient = outcome.plan.timeout_minutes > PATIENT_MINUTES
    causes = {
        name
        for name in outcome.fired
        # A repeat does not go on with what was ended, and a run of days waits for nodes.
        if not (name in ENDS_ONE_ATTEMPT and name not in life.fired) and not (name == "allocation_fails" and is_patient)
    }
    found = {category for name in causes for category in TAKES_DOWN.get(name, ())}
    if outcome.plan.timeout_minutes <= SHORT_MINUTES or _outages(outcome):
        found |= {"wall_clock", "cancelled"}
    if _outages(outcome):
        found |= TAKES_DOWN["wire outage"]
    if life.ending.kind == "interrupted":
        found |= {"cancelled"}
    return found


def _outages(outcome: Outcome) -> bool:
    """Whether requests were refused, or failed for longer than they are repeated."""
    return any(
        fault.kind == "refused" or (fault.seconds is None and fault.times is None and fault.chance > 0.5)
        for fault in outcome.plan.wire
    )


def the_end_of_the_run_is_told(outcome: Outcome) -> Iterator[str]:
    """The exit status and the state say what became of the files; a run without a report has a reason."""
    for life in outcome.lives:
        if life.ending.kind == "killed" and life.status is None and not life.report and not life.error:
            continue
        is_late = "Still cleaning up" in life.stderr
        if life.ending.kind == "interrupted" and outcome.fired.get("interrupted") and not is_late:
            if life.status != EXIT_INTERRUPTED:
                yield f"an interrupted run ended with {life.status}: {life.stderr[-300:]}"
            continue
        if "Traceback" in life.stderr:
            yield f"a traceback on the terminal: {life.stderr[-500:]}"
        yield from _without_report(outcome, life) if life.report is None else _with_report(life, life.report)


def _with_report(life: Life, report: RunReport) -> Iterator[str]:
    failed = bool(report.failed)
    if life.state is not None and life.state.is_completed() == failed:
        yield f"{len(report.failed)} files failed, and the state is {life.state.name}"
    if life.status is None:
        return
    if life.status != (EXIT_FAILED if failed else 0):
        yield f"{len(report.failed)} files failed, and the exit status is {life.status}"
    document = json.loads(life.stdout)
    if [file["status"] == "failed" for file in document["files"]] != [file.result is None for file in report.files]:
        yield "the JSON says otherwise than the report"


def _without_report(outcome: Outcome, life: Life) -> Iterator[str]:
    said = f"{life.error} {life.stderr}"
    if life.status == 0:
        yield "a run without a report ended with exit status 0"
    if NOT_A_REASON.search(said) or (life.error is None and life.status is None):
        yield f"a run failed for no reason that a person can read: {life.error!r} {life.stderr[-300:]}"
    has_inputs = "does not exist" in said or "no input" in said or "cannot be read" in said or "required: INPUT" in said
    if has_inputs and any(name.startswith("file ") for name in outcome.fired):
        return
    if outcome.plan.foreign and "does not belong to this run" in said:
        return
    if not excuses(outcome, life) - {"upload"}:
        yield f"a run failed without a cause: {life.error!r} {life.stderr[-300:]}"


def nothing_is_counted_twice_without_a_cause(outcome: Outcome) -> Iterator[str]:
    """A node counts a content once, and again only if an attempt was lost, or failed as it may."""
    repeats = sum(times for name, times in outcome.fired.items() if name in REPEATS)
    # What a new run counts again of a dead one is in NOT_YET.
    lives = len(outcome.lives)
    runs = len({life.flow_run.id for life in outcome.lives if life.flow_run}) + _new_starts(outcome)
    bad = {
        sha256(content).hexdigest()
        for found in outcome.contents.values()
        for content in found
        if _text(content) is None
    }
    for digest, times in outcome.counted.items():
        # What failed is tried again, by Batch and by each repeat of the run.
        times_each = 2 * lives if digest in bad else runs * (2 if outcome.plan.refresh else 1)
        if outcome.plan.files_per_task:
            # A repeat that finds other work makes other packs.
            times_each = max(times_each, lives)
        if times > times_each * (1 + 3 * repeats):
            yield f"{digest[:8]} was counted {times} times"


def _new_starts(outcome: Outcome) -> int:
    """Count the repeats that found too little time before the deadline of the attempt before, and began anew."""
    usable = timedelta(minutes=outcome.plan.timeout_minutes) - MIN_TIME_LEFT
    starts, began_at = 0, {}
    for life in outcome.lives:
        if life.flow_run is None:
            continue
        if life.started_at >= began_at.setdefault(life.flow_run.id, life.started_at) + usable:
            began_at[life.flow_run.id] = life.started_at
            starts += 1
    return starts


def nothing_stays_and_nothing_of_others_goes(outcome: Outcome) -> Iterator[str]:
    """Cleanup deletes what the run made, but for what it keeps; a sweep deletes the rest; neither touches anything else."""
    last = outcome.lives[-1]
    unreported = [name for name in outcome.left if not _is_reported(outcome, last, name)]
    if unreported:
        yield f"the run left {', '.join(unreported)} without a word"
    if outcome.left_at_last:
        yield f"the last sweep left {', '.join(outcome.left_at_last)}"
    if outcome.others_changed:
        yield f"changed or gone, and not of this run: {', '.join(outcome.others_changed)}"
    kinds = {name.partition(" ")[0] + ("s" if name.startswith("container") else "") for name in outcome.kept}
    if not kinds <= outcome.plan.keep:
        yield f"{kinds} were kept"
    sweep = outcome.sweep
    if sweep is not None and sweep.status != 0:
        yield f"the last sweep ended with {sweep.status}: {sweep.stderr[-300:]}"


def _is_reported(outcome: Outcome, life: Life, name: str) -> bool:
    """Whether the user hears of what stays, where there was a cause for it to stay."""
    if life.status is not None:
        return _outages(outcome) and name in life.stderr and life.status in {EXIT_FAILED, EXIT_INTERRUPTED}
    return _outages(outcome) and life.state is not None and name in str(life.state.message)


def no_node_lives_past_the_deadline(outcome: Outcome) -> Iterator[str]:
    """Minutes after the deadline no node of a run is there, whoever is alive."""
    if outcome.late_nodes:
        yield f"nodes after the deadline: {', '.join(outcome.late_nodes)}"


def no_run_outlives_its_deadline(outcome: Outcome) -> Iterator[str]:
    """A run ends some minutes after its deadline at the latest, unless its machine was asleep."""
    if any(act.name == "suspend" for act in outcome.plan.acts):
        return
    for life in outcome.lives:
        took_minutes = (life.ended_at - life.started_at).total_seconds() / 60
        if took_minutes > outcome.plan.timeout_minutes + GRACE_MINUTES:
            yield f"a run of {outcome.plan.timeout_minutes} minutes took {took_minutes:.0f}"


def no_secret_is_in_any_text(outcome: Outcome) -> Iterator[str]:
    """No key and no signature stands in what anybody can read."""
    for text in outcome.texts:
        for secret in secrets_in(text, KEYS):
            yield f"{secret} in a text: {text[:200]!r}"


def requests_are_bounded(outcome: Outcome) -> Iterator[str]:
    """A run asks as often as its files and its polls need."""
    polls = 5 * outcome.seconds / 5.0
    bound = len(outcome.lives) * (500 + 100 * len(outcome.plan.files)) + polls
    total = sum(outcome.requests.values())
    if total > bound:
        yield f"{total} requests, more than {bound:.0f}"


CHECKS = (
    every_file_has_its_result_or_a_true_reason,
    the_end_of_the_run_is_told,
    nothing_is_counted_twice_without_a_cause,
    nothing_stays_and_nothing_of_others_goes,
    no_node_lives_past_the_deadline,
    no_run_outlives_its_deadline,
    no_secret_is_in_any_text,
    requests_are_bounded,
)


def count(text: str, plan: Plan) -> tuple[int, int, list[list[object]]]:
    """Count as the specification says, in the plainest way."""
    words = [word for word in (token.strip(string.punctuation) for token in text.split()) if word]
    if plan.ignore_case:
        words = [word.casefold() for word in words]
    counts = Counter(words)
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: plan.num_words]
    return len(words), len(counts), [list(pair) for pair in top]


def _text(content: bytes) -> str | None:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _matches(name: str, shown: str) -> bool:
    """Whether a file is called so: names are below the common folder of the inputs."""
    return name == shown or name.endswith(f"/{shown}")
