"""The text of a run's artifacts, rendered from its report. Its size has a limit that does not depend on the files.

Prefect's pages render Markdown with HTML, and load its images. Names, words, messages and program output are untrusted, so
they appear only through `escape_markdown`, `code` and `block`.
"""

from __future__ import annotations

import base64
import platform
import re
from collections import Counter

from tasks.model.files import InputFile, MergeInput
from tasks.model.urls import URL
from tasks.report.failure import MEANINGS, Failure, describe
from tasks.report.model import RunReport, Usage
from tasks.report.price import HOUR_SECONDS, MIN_SPOT_SHARE, describe_cost
from tasks.text import printable, printable_lines, quantity, shorten
from tasks.workload.base import Cell, Picture

MAX_ROWS = 500
MAX_DETAILS = 25
MAX_LISTED = 10

MINUTE_SECONDS = 60

# What a user can do about a run that ended before its report.
NEXT_STEPS = {
    "failed": "Correct the cause and run again. If the error is unexpected, the log of the run has its traceback.",
    "crashed": "The process of the run ended. Run again: only what was not collected is processed again.",
    "cancelled": "Run again: only what was not collected is processed again.",
}


def duration(seconds: float) -> str:
    """Format a duration in its largest one or two units, such as "1 min 05 s"."""
    if seconds < 10:  # noqa: PLR2004 - only short durations need tenths
        return f"{seconds:.1f} s"
    if (whole := round(seconds)) < MINUTE_SECONDS:
        return f"{whole} s"
    if whole < HOUR_SECONDS:
        return f"{whole // MINUTE_SECONDS} min {whole % MINUTE_SECONDS:02} s"
    return f"{whole // HOUR_SECONDS} h {whole % HOUR_SECONDS // MINUTE_SECONDS:02} min"


def key_figures(report: RunReport) -> list[tuple[str, str, str]]:
    """Return the key figures of a run: the name and value of each, and a remark or ""."""
    figures = [
        (f"Files {report.workload.done} now", f"{report.count('done'):,}", ""),
        ("Files unchanged", f"{report.count('unchanged'):,}", ""),
        ("Files failed", f"{report.count('failed'):,}", ""),
        *((name, text, "") for name, text in report.figures),
    ]
    if report.steps:
        figures.append(("Time until the report", duration(_span_seconds(report)), ""))
    if report.usage is not None:
        figures += _usage_figures(report.usage)
    return [*figures, cost_figure(report)]


def cost_figure(report: RunReport) -> tuple[str, str, str]:
    """Return the key figure of the cost."""
    return ("Cost of the nodes", *describe_cost(report.usage, report.price))


def with_remark(text: str, remark: str) -> str:
    """Return the value of a key figure and its remark in one line."""
    if not remark:
        return text
    return f"{text[:-1]}; {remark})" if text.endswith(")") else f"{text} ({remark})"


def notes(report: RunReport) -> list[str]:
    """Return sentences on what is missing in the report, and on how the key figures were measured."""
    usage, price = report.usage, report.price
    problems = list(report.problems.values())
    if usage is None or price is None:
        return problems
    if usage.node_seconds is None:
        return [*problems, "The run used an existing pool, so node-minutes and their cost are not counted."]
    sentences = [
        *problems,
        "Node-minutes count from when Batch allocated a node to when the run last saw it.",
    ]
    if price.usd_per_node_hour is None:
        sentences.append(f"The price of {price.source} is unknown. Set it with the parameter `usd_per_node_hour`.")
    else:
        cost = "The cost" if price.is_paid else "What Azure would charge"
        sentences.append(f"{cost} covers only nodes, at {price.usd_per_node_hour:g} USD per hour ({price.source}).")
        if usage.spot_node_seconds:
            sentences.append(f"The price of spot nodes varies between {MIN_SPOT_SHARE:.0%} of that and all of it.")
    return sentences


def cost(report: RunReport) -> str:
    """Return what the nodes of a run cost, as far as it is known."""
    return cost_figure(report)[1]


def waiting_sentence(report: RunReport) -> str:
    """Return a sentence on the time without a running Batch task, or "" if the run did not wait."""
    usage = report.usage
    if usage is None or usage.waited_seconds <= 0:
        return ""
    share = usage.idle_seconds / usage.waited_seconds
    caveat = " Only the last attempt of each Batch task is counted." if usage.retries or usage.requeues else ""
    return (
        f"The run waited {duration(usage.waited_seconds)} for Batch tasks. For {duration(usage.idle_seconds)} of that "
        f"time ({share:.0%}), no Batch task ran, because nodes were starting or the service was busy.{caveat}"
    )


def summary(report: RunReport, time_svg: str = "", picture: Picture | None = None) -> str:
    """Render the summary of a run in Markdown.

    Args:
        report: The run.
        time_svg: The time chart, or "".
        picture: The picture of the results, if any.
    """
    # The notes name the problems of all hooks.
    corpus_line, corpus_rows = report.corpus_line, report.corpus_rows
    lines = [f"# {report.headline}", ""]
    if report.is_failed:
        lines += [
            "## Failed",
            "",
            failures_summary(report),
            "",
            f"For details, see the artifact `{report.workload.name}-failures`.",
            "",
        ]
    lines += [f"| Run | {code(report.run_name)} |", "|---|---|"]
    lines += [_row(name, with_remark(text, remark)) for name, text, remark in key_figures(report)]
    if corpus_line:
        lines += [_row("All files together", corpus_line)]
    if report.comparison is not None:
        lines += [_row("Against the previous run", report.comparison.line)]
    unwritten = [f"{error} could not be written." for error in report.unwritten[:MAX_LISTED]]
    if sentences := [*unwritten, *notes(report)]:
        lines += ["", escape_markdown(" ".join(sentences))]
    lines += ["", "## Time", ""]
    if time_svg:
        lines += [_picture("Time", time_svg), ""]
    lines += ["| step | task runs | start | duration |", "|---|--:|--:|--:|"]
    for time in report.steps:
        since = (time.started_at - report.steps[0].started_at).total_seconds()
        lines.append(_row(time.step, str(time.task_runs), duration(since), duration(time.seconds)))
    if sentence := waiting_sentence(report):
        lines += ["", sentence]
    if picture is not None:
        title = escape_markdown(picture.title)
        lines += ["", f"## {title}", "", _picture(title, picture.svg), "", escape_markdown(picture.sentence)]
    if rows := corpus_rows:
        alignments = ["--:" if isinstance(cell, int) else "---" for cell in rows[0].values()]
        lines += ["", *([] if picture else ["## All files together", ""]), _row(*rows[0]), f"|{'|'.join(alignments)}|"]
        lines += [_row(*map(cell_text, row.values())) for row in rows]
    return "\n".join([*lines, "", "## Outputs", "", *_outputs(report)])


def answers(report: RunReport) -> str:
    """Return what a run did, what failed, what it found, cost and changed, as a list in Markdown.

    It describes the summary where Prefect lists the artifacts of a run, so people need not open the summary. Prefect cuts
    each line after about 36 characters.
    """
    _, text, remark = cost_figure(report)
    lines = [
        report.headline,
        *(failure.reason for failure in report.describe_failures(1)),
        report.corpus_line,
        with_remark(text, remark),
        f"Changes: {report.comparison.line}" if report.comparison else "",
    ]
    return "\n".join(f"- {escape_markdown(shorten(line))}" for line in lines if line)


def _outputs(report: RunReport) -> list[str]:
    where = f" on {code(report.host)}" if report.host else ""
    lines = [f"In {code(report.output_folder)}{where}."]
    if URL.match(report.page):
        lines += ["", f"The page about this run is [{report.page.rpartition('/')[2]}](<{report.page}>)."]
    elif report.page:
        lines += ["", f"The page about this run is {code(report.page)} on {code(platform.node())}."]
    return lines


def early_summary(outcome: str, reason: str) -> str:
    """Render the summary of a run that ended before its report.

    Args:
        outcome: "failed", "crashed" or "cancelled".
        reason: Why, in printable text; or "".
    """
    lines = [f"# {outcome.capitalize()} before the report", ""]
    if reason:
        lines += [escape_markdown(reason), ""]
    return "\n".join([*lines, NEXT_STEPS[outcome]])


def results(report: RunReport) -> str:
    """Render a table with the first `MAX_ROWS` files in Markdown, failed ones first.

    One version of Prefect's pages renders the cells of a table artifact as Markdown, and the other one does not. So no
    text can be escaped for both.
    """
    failed = [describe(file, file.error) for file in report.failed[:MAX_ROWS] if file.error is not None]
    rows = [(file, report.columns(file)) for file, _ in report.with_result[: MAX_ROWS - len(failed)]]
    columns = next((row for _, row in rows if row), {})
    alignments = ["--:" if isinstance(cell, int) else "---" for cell in columns.values()]
    return "\n".join(
        [
            _row("file", "status", *columns),
            f"|{'|'.join(['---', '---', *alignments])}|",
            *(
                _row(shorten(failure.name, 80), f"failed: {shorten(failure.message)}", *("" for _ in columns))
                for failure in failed
            ),
            *(
                _row(
                    shorten(printable(file.file.name), 80),
                    report.status_words[file.status],
                    *(cell_text(row.get(name, "")) for name in columns),
                )
                for file, row in rows
            ),
        ]
    )


def cell_text(cell: Cell) -> str:
    """Format a cell as one line of plain text."""
    if isinstance(cell, str):
        return shorten(printable(cell))
    if isinstance(cell, int):
        return f"{cell:,}"
    return printable(", ".join(" ".join(pair).strip() for pair in cell))


def results_summary(report: RunReport) -> str:
    """Return a sentence on which files the results table contains."""
    order = " Failed files are first." if report.failed else ""
    if len(report.files) <= MAX_ROWS:
        return f"The results of {quantity(len(report.files), 'file')}.{order}"
    first = f"The results of the first {MAX_ROWS:,} of {len(report.files):,} files."
    return f"{first}{order} The output folder contains all results."


def failures_summary(report: RunReport) -> str:
    """List the first failed files and their errors in Markdown."""
    named = [f"- {escape_markdown(shorten(failure.reason, 300))}" for failure in report.describe_failures(MAX_LISTED)]
    more = report.count("failed") + (report.corpus_failure is not None) - len(named)
    return "\n".join([*named, *([f"- and {more:,} more"] if more else [])])


def failures(report: RunReport) -> str:
    """Render the number of failed files per category, and details of the first ones, in Markdown."""
    failed = report.failed
    counts = Counter(file.error.category for file in failed if file.error is not None)
    if report.corpus_failure is not None:
        failed = (report.corpus_failure, *failed)
    lines = [f"# {report.failure}"]
    if counts:
        lines += ["", "| category | files | meaning |", "|---|--:|---|"]
    lines += [f"| {category.value} | {count:,} | {MEANINGS[category]} |" for category, count in counts.most_common()]
    for failure, file in zip(report.describe_failures(MAX_DETAILS), failed, strict=False):
        lines += ["", *_failure_section(failure, file.file)]
    if len(failed) > MAX_DETAILS:
        rest = [shorten(printable(file.file.name), 80) for file in failed[MAX_DETAILS : MAX_DETAILS + MAX_ROWS]]
        lines += ["", f"## {len(failed) - MAX_DETAILS:,} more", "", block("\n".join(rest))]
        if (unnamed := len(failed) - MAX_DETAILS - len(rest)) > 0:
            lines += ["", f"{unnamed:,} more files are not listed here. `topn run --json` lists all files."]
    return "\n".join(lines)


def _failure_section(failure: Failure, file: InputFile) -> list[str]:
    lines = [f"## {code(shorten(failure.name))}", "", escape_markdown(shorten(failure.message, 1000)), ""]
    lines += [f"- {label}: {code(text)}" for label, text in (("category", failure.category), *failure.facts)]
    if not isinstance(file, MergeInput):
        lines.append(f"- content: {code(f'{file.size_bytes:,} bytes, SHA-256 {file.sha256}')}")
    for name, text in failure.logs:
        lines += ["", f"Last lines of {name}:", "", block(text)]
    if failure.repeat_command:
        lines += ["", "Repeat the work on the machine with the files:", "", block(failure.repeat_command)]
    return lines


def code(text: str) -> str:
    """Format text as a code span with delimiters that the text cannot close."""
    text = printable(text)
    fence = "`" * (_max_backtick_run(text) + 1)
    return f"{fence} {text} {fence}" if "`" in text or text.strip() != text or not text else f"{fence}{text}{fence}"


def block(text: str) -> str:
    """Format text as a code block with a fence that the text cannot close."""
    text = printable_lines(text)
    fence = "`" * max(3, _max_backtick_run(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def escape_markdown(text: str) -> str:
    """Escape everything in one line of text that Markdown or HTML could interpret."""
    # Four leading spaces would start a code block.
    escaped = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", printable(text).strip(" "))
    # Prefect's pages turn addresses into links after they have resolved the escapes. A comment splits an address.
    return re.sub(r"(?i)\\:(?=\\/\\/)|www(?=\\\.)|\\@", r"\g<0><!-- -->", escaped)


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def _max_backtick_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _picture(title: str, svg: str) -> str:
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _usage_figures(usage: Usage) -> list[tuple[str, str, str]]:
    repeats = [
        f"{count:,} {what}"
        for count, what in ((usage.retries, "retried"), (usage.requeues, "started again on another node"))
        if count
    ]
    figures = [
        ("Batch tasks completed", f"{usage.batch_tasks:,}", ", ".join(repeats)),
        ("Running time of Batch tasks", duration(usage.task_seconds), "sum"),
        ("Nodes seen", f"{usage.nodes:,}", f"preempted {usage.preemptions:,} times" if usage.preemptions else ""),
    ]
    if usage.node_seconds is not None:
        spot = f"and {usage.spot_node_seconds / MINUTE_SECONDS:,.1f} spot" if usage.spot_node_seconds else ""
        figures.append(("Node-minutes", f"{usage.node_seconds / MINUTE_SECONDS:,.1f}", spot))
    return figures


def _span_seconds(report: RunReport) -> float:
    ends = [time.ended_at for time in report.steps]
    return (max(ends) - report.steps[0].started_at).total_seconds()
