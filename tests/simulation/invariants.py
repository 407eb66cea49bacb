"""Invariants that hold after every history."""

from __future__ import annotations

import gzip
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
from tasks.steps.start import MIN_REMAINING_TIME
from tasks.workload.base import Corpus
from tasks.workload.word_counts import WordCounts, corpus_counts, counts_of

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

# Internal terms that no message to a user may contain.
INTERNAL_TERMS = re.compile(
    r"Traceback|UnfinishedRun|JSONDecodeError|KeyError|TypeError|AttributeError|Expecting value|PENDING state|object at 0x"
)

# Causes that can end a Batch task or a whole run, and the categories of errors that they justify for good files.
CATEGORIES_BY_CAUSE = {
    # A file whose Batch task is added later fails at that point.
    "terminate_job": {"cancelled", "node"},
    "delete_job": {"cancelled", "node"},
    "disable_job": {"cancelled", "wall_clock"},
    "pause_job": {"cancelled", "wall_clock"},
    "delete_pool": {"node", "cancelled"},
    "delete_container": {"resource_file", "upload"},
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

# Causes that make a node count a content again, at most once each.
RECOUNT_CAUSES = {
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

# Failed requests are retried for a minute each, and a run sends several after its deadline.
GRACE_MINUTES = 20.0

# Causes that end only the attempt in which they happen.
ENDS_ONE_ATTEMPT = {"terminate_job", "delete_job", "delete_pool"}

# With this timeout, a pool without nodes for a day does not justify an error.
LONG_TIMEOUT_MINUTES = 1000.0

# With this probability or less, a request fails less often than it is retried.
SHORT_FAULT_CHANCE = 0.3

# With this timeout or less, the deadline justifies an error.
SHORT_TIMEOUT_MINUTES = 20.0


def violations(outcome: Outcome) -> list[str]:
    """List the violated invariants, one sentence each."""
    return [sentence for check in CHECKS for sentence in check(outcome)]


def every_file_has_result_or_true_reason(outcome: Outcome) -> Iterator[str]:
    """Check that each result matches the file's content, and that each error has a cause in the plan."""
    for life in outcome.lives:
        if not life.report:
            continue
        names = [file.file.name for file in life.report.files]
        if len(names) != len(set(names)):
            yield f"a file is reported twice: {names}"
        for file in life.report.files:
            yield from _file(outcome, life, file)


def corpus_is_exact_or_has_true_reason(outcome: Outcome) -> Iterator[str]:
    """Check that the corpus has all words of all files with a result, and that its error has a cause in the plan."""
    for life in outcome.lives:
        if not life.report:
            continue
        corpus, files = life.report.corpus, [file for file in life.report.files if file.result is not None]
        if not outcome.plan.corpus or not files:
            if corpus is not None:
                yield f"there is a corpus of {len(files)} files"
        elif isinstance(corpus, Corpus):
            yield from _corpus(outcome, corpus, files, life.report)
        elif corpus is None:
            yield "there is no corpus"
        elif INTERNAL_TERMS.search(corpus.message):
            yield f"the corpus failed with an unreadable message: {corpus.message}"
        elif corpus.category.value not in justified_categories(outcome, life):
            yield f"the corpus failed without a cause [{corpus.category.value}]: {corpus.message}"


def _corpus(outcome: Outcome, corpus: Corpus, files: list[FileReport], report: RunReport) -> Iterator[str]:
    texts = []
    for file in files:
        spec = next(spec for spec in outcome.plan.files if _matches(spec.name, file.file.name))
        by_hash = {sha256(content).hexdigest(): content for content in outcome.contents[spec.name]}
        texts.append(_text(spec.name, by_hash[file.file.sha256], outcome.plan) or "")
    counts = corpus_counts(corpus.result)
    if (counts.words, counts.distinct, [list(pair) for pair in counts.top]) != count("\n".join(texts), outcome.plan):
        yield f"the corpus is counted wrongly: {counts}"
    if corpus.file_count != len(files) or sorted(corpus.failed) != sorted(file.file.name for file in report.failed):
        yield f"the corpus has {corpus.file_count} files and not {corpus.failed}"


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
    if INTERNAL_TERMS.search(message):
        yield f"{spec.name} failed with an unreadable message: {message}"
    bad = any(_text(spec.name, content, outcome.plan) is None for content in contents)
    if bad and category == "input" and ("offset" in message or "cannot be expanded" in message):
        return
    if bad and category == "program" and outcome.fired.get("upload_fails"):
        # The program's output was not uploaded either.
        return
    changed = outcome.fired.get(f"file {spec.fate}", 0) > 0
    said = ("changed", "cannot be read", "was deleted", "may not be read")
    if changed and category in {"input", "resource_file"} and any(words in message for words in said):
        return
    if category not in justified_categories(outcome, life):
        yield f"{spec.name} failed without a cause [{category}]: {message}"


def _result(plan: Plan, name: str, contents: list[bytes], digest: str, counts: WordCounts) -> Iterator[str]:
    content = {sha256(content).hexdigest(): content for content in contents}.get(counts.sha256)
    if content is None or counts.sha256 != digest:
        yield f"{name} has the result of another content"
    elif (text := _text(name, content, plan)) is None:
        yield f"{name} is not text but has a result"
    elif (counts.words, counts.distinct, [list(pair) for pair in counts.top]) != count(text, plan):
        yield f"{name} is counted wrongly: {counts}"


def justified_categories(outcome: Outcome, life: Life) -> set[str]:
    """Return the categories of errors that the faults justify for any file."""
    has_long_timeout = outcome.plan.timeout_minutes > LONG_TIMEOUT_MINUTES
    causes = {
        name
        for name in outcome.fired
        # A retry does not continue an ended attempt, and a run of days waits for nodes.
        if not (name in ENDS_ONE_ATTEMPT and name not in life.fired)
        and not (name == "allocation_fails" and has_long_timeout)
    }
    found = {category for name in causes for category in CATEGORIES_BY_CAUSE.get(name, ())}
    if outcome.plan.timeout_minutes <= SHORT_TIMEOUT_MINUTES or _has_outage(outcome):
        found |= {"wall_clock", "cancelled"}
    if _has_outage(outcome):
        found |= CATEGORIES_BY_CAUSE["wire outage"]
    if life.exit.kind == "interrupted":
        found |= {"cancelled"}
    return found


def _has_outage(outcome: Outcome) -> bool:
    """Check whether requests were rejected, or failed for longer than they are retried."""
    return any(
        fault.kind == "refused" or (fault.seconds is None and fault.times is None and fault.chance > 0.5)
        for fault in outcome.plan.wire
    )


def run_outcome_is_reported(outcome: Outcome) -> Iterator[str]:
    """Check that exit status and state match the files, and that a run without a report has a reason."""
    for life in outcome.lives:
        if life.exit.kind == "killed" and life.status is None and not life.report and not life.error:
            continue
        is_late = "Still cleaning up" in life.stderr
        if life.exit.kind == "interrupted" and outcome.fired.get("interrupted") and not is_late:
            if life.status != EXIT_INTERRUPTED:
                yield f"an interrupted run ended with {life.status}: {life.stderr[-300:]}"
            continue
        if "Traceback" in life.stderr:
            yield f"a traceback on the terminal: {life.stderr[-500:]}"
        yield from _without_report(outcome, life) if life.report is None else _with_report(life, life.report)


def _with_report(life: Life, report: RunReport) -> Iterator[str]:
    failed = report.is_failed
    if life.state is not None and life.state.is_completed() == failed:
        yield f"{len(report.failed)} files failed, and the state is {life.state.name}"
    if life.status is None:
        return
    # What the run could not delete of dead runs is only a warning.
    left_something = any(
        "Could not delete" in line and not line.startswith("Dead runs") for line in life.stderr.splitlines()
    )
    if life.status != (EXIT_FAILED if failed or left_something else 0):
        yield f"{len(report.failed)} files failed, and the exit status is {life.status}"
    document = json.loads(life.stdout)
    if [file["status"] == "failed" for file in document["files"]] != [file.result is None for file in report.files]:
        yield "the JSON differs from the report"


def _without_report(outcome: Outcome, life: Life) -> Iterator[str]:
    said = f"{life.error} {life.stderr}"
    if life.status == 0:
        yield "a run without a report ended with exit status 0"
    if INTERNAL_TERMS.search(said) or (life.error is None and life.status is None):
        yield f"a run failed with an unreadable message: {life.error!r} {life.stderr[-300:]}"
    has_inputs = "does not exist" in said or "no input" in said or "cannot be read" in said or "required: INPUT" in said
    has_inputs = has_inputs or "matches no blob" in said
    if has_inputs and any(name.startswith("file ") for name in outcome.fired):
        return
    if outcome.fired.get("prefect"):
        return
    if outcome.plan.foreign and "does not belong to this run" in said:
        return
    if not justified_categories(outcome, life) - {"upload"}:
        yield f"a run failed without a cause: {life.error!r} {life.stderr[-300:]}"


def nothing_is_counted_twice_without_cause(outcome: Outcome) -> Iterator[str]:
    """Check that nodes count a content once, and again only after a lost or failed attempt."""
    bad = {
        sha256(content).hexdigest()
        for name, found in outcome.contents.items()
        for content in found
        if _text(name, content, outcome.plan) is None
    }
    # A pack succeeds even if its files are bad, and these run again.
    has_collected = not (
        (outcome.plan.files_per_task and bad)
        or outcome.plan.refresh
        or outcome.plan.acts
        or outcome.plan.store_fails
        or outcome.plan.damages_store
    )
    if has_collected and outcome.repeated and not _has_outage(outcome) and not _new_starts(outcome):
        yield f"Batch tasks ran again: {outcome.repeated}"
    repeats = sum(times for name, times in outcome.fired.items() if name in RECOUNT_CAUSES)
    lives = len(outcome.lives)
    runs = len({life.flow_run.id for life in outcome.lives if life.flow_run}) + _new_starts(outcome)
    blobs = Counter(
        sha256(content).hexdigest()
        for file in outcome.plan.files
        if file.is_blob
        for content in outcome.contents[file.name]
    )
    for digest, times in outcome.counted.items():
        # Batch and each retry of the run count failed files again.
        times_each = 2 * lives if digest in bad else runs * (2 if outcome.plan.refresh else 1)
        if outcome.plan.files_per_task or outcome.plan.damages_store or outcome.plan.store_fails:
            # A retry with other files creates other packs. Without stored results, it counts again.
            times_each = max(times_each, lives)
        if digest in blobs:
            # Blobs with the same content are told apart until they are counted. Nodes may read one that changes under
            # the plan of before.
            times_each = (times_each + (lives if _has_changed_blobs(outcome) else 0)) * (1 + blobs[digest])
        if times > times_each * (1 + 3 * repeats):
            yield f"{digest[:8]} was counted {times} times"


def _has_changed_blobs(outcome: Outcome) -> bool:
    return any(file.is_blob and file.fate != "stays" for file in outcome.plan.files)


def _new_starts(outcome: Outcome) -> int:
    """Count the retries that started anew because too little time was left until the deadline."""
    usable = timedelta(minutes=outcome.plan.timeout_minutes) - MIN_REMAINING_TIME
    starts, started_at = 0, {}
    for life in outcome.lives:
        if life.flow_run is None:
            continue
        if life.started_at >= started_at.setdefault(life.flow_run.id, life.started_at) + usable:
            started_at[life.flow_run.id] = life.started_at
            starts += 1
    return starts


def cleanup_deletes_exactly_own_resources(outcome: Outcome) -> Iterator[str]:
    """Check that cleanup and sweep delete all resources of runs except kept ones, and nothing else."""
    last = outcome.lives[-1]
    unreported = [name for name in outcome.leftovers if not _is_reported(outcome, last, name)]
    if unreported:
        yield f"the run left {', '.join(unreported)} silently"
    if outcome.leftovers_after_sweep:
        yield f"the last sweep left {', '.join(outcome.leftovers_after_sweep)}"
    if outcome.others_changed:
        yield f"resources of others changed or deleted: {', '.join(outcome.others_changed)}"
    kinds = {name.partition(" ")[0] + ("s" if name.startswith("container") else "") for name in outcome.kept}
    if not kinds <= outcome.plan.keep:
        yield f"{kinds} were kept"
    sweep = outcome.sweep
    if sweep is not None and sweep.status != 0:
        yield f"the last sweep ended with {sweep.status}: {sweep.stderr[-300:]}"


def _is_reported(outcome: Outcome, life: Life, name: str) -> bool:
    """Check whether the user is notified of a leftover that has a cause, by its name or by the prefix of its run."""
    kind, _, own_name = name.partition(" ")
    names = (name, f"{kind}s {'-'.join(own_name.split('-')[:2])}-…")
    if life.status is not None:
        is_listed = any(name in life.stderr for name in names) and "topn sweep" in life.stderr
        return _has_outage(outcome) and is_listed and life.status in {EXIT_FAILED, EXIT_INTERRUPTED}
    return _has_outage(outcome) and life.state is not None and any(name in str(life.state.message) for name in names)


def no_node_outlives_deadline(outcome: Outcome) -> Iterator[str]:
    """Check that no node of a run exists minutes after the deadline."""
    if outcome.late_nodes:
        yield f"nodes after the deadline: {', '.join(outcome.late_nodes)}"


def no_run_outlives_deadline(outcome: Outcome) -> Iterator[str]:
    """Check that a run ends at most minutes after its deadline, unless its machine slept."""
    if any(act.name == "suspend" for act in outcome.plan.acts):
        return
    for life in outcome.lives:
        took_minutes = (life.ended_at - life.started_at).total_seconds() / 60
        if took_minutes > outcome.plan.timeout_minutes + GRACE_MINUTES:
            yield f"a run of {outcome.plan.timeout_minutes} minutes took {took_minutes:.0f}"


def no_text_contains_secret(outcome: Outcome) -> Iterator[str]:
    """Check that no text contains a key or a signature."""
    for text in outcome.texts:
        for secret in secrets_in(text, KEYS):
            yield f"{secret} in a text: {text[:200]!r}"


def requests_are_bounded(outcome: Outcome) -> Iterator[str]:
    """Check that the number of requests depends only on files and polls."""
    polls = 5 * outcome.seconds / 5.0
    bound = len(outcome.lives) * (500 + 100 * len(outcome.plan.files)) + polls
    total = sum(outcome.requests.values())
    if total > bound:
        yield f"{total} requests, more than {bound:.0f}"


def steps_survive_short_faults(outcome: Outcome) -> Iterator[str]:
    """Check that the clients retry their requests, so that no step fails because of a few of them."""
    plan = outcome.plan
    if (
        plan.acts
        or plan.foreign
        or any(fault.times is None and fault.chance > SHORT_FAULT_CHANCE for fault in plan.wire)
    ):
        return
    for line in outcome.trace:
        if " retry " in line:
            yield f"a step was repeated: {line.strip()}"


CHECKS = (
    every_file_has_result_or_true_reason,
    corpus_is_exact_or_has_true_reason,
    run_outcome_is_reported,
    nothing_is_counted_twice_without_cause,
    cleanup_deletes_exactly_own_resources,
    no_node_outlives_deadline,
    no_run_outlives_deadline,
    no_text_contains_secret,
    requests_are_bounded,
    steps_survive_short_faults,
)


def count(text: str, plan: Plan) -> tuple[int, int, list[list[object]]]:
    """Count words with the simplest code that meets the specification."""
    words = [word for word in (token.strip(string.punctuation) for token in text.split()) if word]
    if plan.ignore_case:
        words = [word.casefold() for word in words]
    counts = Counter(words)
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: plan.num_words]
    return len(words), len(counts), [list(pair) for pair in top]


def _text(name: str, content: bytes, plan: Plan) -> str | None:
    try:
        data = gzip.decompress(content) if name.endswith(".gz") else content
        text = data.decode(plan.encoding).removeprefix("\ufeff")
    except (UnicodeDecodeError, OSError, EOFError):
        return None
    return None if "\0" in text else text


def _matches(name: str, shown: str) -> bool:
    """Check whether a file has a name; printed names are relative to the inputs' common folder."""
    return name == shown or name.endswith(f"/{shown}")
