"""The texts of a run's artifacts, made from its report alone; each is bounded, however many files there are.

Names, words and what programs said are hostile here: they stand in code spans, code blocks and table cells only.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter

from tasks.model.files import InputFile
from tasks.report.failure import MEANINGS, Failure
from tasks.report.model import Price, RunReport, Usage
from tasks.text import cut, printable
from tasks.workload.base import Cell, Picture

MAX_ROWS = 500
MAX_DOSSIERS = 25
MAX_NAMED = 10

MINUTE_SECONDS = 60
HOUR_SECONDS = 3600


def duration(seconds: float) -> str:
    """Write a duration in the two units that matter."""
    if seconds < 10:  # noqa: PLR2004 - below this, tenths can be told apart
        return f"{seconds:.1f} s"
    if (whole := round(seconds)) < MINUTE_SECONDS:
        return f"{whole} s"
    if whole < HOUR_SECONDS:
        return f"{whole // MINUTE_SECONDS} min {whole % MINUTE_SECONDS:02} s"
    return f"{whole // HOUR_SECONDS} h {whole % HOUR_SECONDS // MINUTE_SECONDS:02} min"


def key_figures(report: RunReport) -> list[tuple[str, str, str]]:
    """The run in a few figures: the name of each, the figure, and what belongs to it or ""."""
    figures = [
        (f"Files {report.workload.done} now", f"{report.count('done'):,}", ""),
        ("Files unchanged", f"{report.count('unchanged'):,}", ""),
        ("Files failed", f"{report.count('failed'):,}", ""),
        *((name, text, "") for name, text in report.workload.figures(report.results)),
    ]
    if report.steps:
        figures.append(("Time until the report", duration(_span_seconds(report)), ""))
    if report.usage is not None:
        figures += _usage_figures(report.usage)
        is_paid = report.price is None or report.price.is_paid
        figures.append(("Cost of the nodes", _cost(report.usage, report.price), "estimated" if is_paid else "on Azure"))
    return figures


def notes(report: RunReport) -> list[str]:
    """Say how the figures were had, in whole sentences; "" never."""
    usage, price = report.usage, report.price
    if usage is None or price is None:
        return []
    if usage.node_seconds is None:
        return ["The pool is not the run's own: its node-minutes and their cost are not counted here."]
    found = ["Node-minutes count from each node's allocation, as Batch says it, to when the run last saw the node."]
    if price.usd_per_node_hour is None:
        found.append(f"No price is known of {price.source}: the parameter usd_per_node_hour sets one.")
    else:
        kind = "dedicated nodes alone" if usage.spot_node_seconds else "nodes alone"
        place = "The cost is" if price.is_paid else "This was no Azure, and cost nothing; there, it would be"
        found.append(f"{place} that of the {kind}, at {price.usd_per_node_hour:g} USD an hour: {price.source}.")
    return found


def _cost(usage: Usage, price: Price | None) -> str:
    if usage.node_seconds is None or price is None or price.usd_per_node_hour is None:
        return "not known"
    estimate = usage.node_seconds / HOUR_SECONDS * price.usd_per_node_hour
    return f"{estimate:.4f} USD" if estimate < 1 else f"{estimate:,.2f} USD"


def waiting_sentence(report: RunReport) -> str:
    """Say how much of the waiting was for nodes; "" where nothing was waited for."""
    usage = report.usage
    if usage is None or usage.watched_seconds <= 0:
        return ""
    share = usage.idle_seconds / usage.watched_seconds
    unseen = " Attempts that were repeated are not seen here." if usage.retries or usage.requeues else ""
    return (
        f"Batch tasks were waited for {duration(usage.watched_seconds)}; for {duration(usage.idle_seconds)} of it "
        f"({share:.0%}) none ran: nodes were on their way, or the service was.{unseen}"
    )


def summary(report: RunReport, time_svg: str = "", picture: Picture | None = None) -> str:
    """Write the run's summary in Markdown.

    Args:
        report: The run.
        time_svg: A picture of where the time went, or "".
        picture: One of the results, if there is one.
    """
    lines = [f"# {report.headline}", "", f"| Run | {code(report.run_name)} |", "|---|---|"]
    lines += [f"| {name} | {text}{f' ({more})' if more else ''} |" for name, text, more in key_figures(report)]
    if sentences := notes(report):
        lines += ["", escaped(" ".join(sentences))]
    if report.failed:
        lines += [
            "",
            "## Failed",
            "",
            failures_summary(report),
            "",
            f"More on each is in the artifact `{report.workload.name}-failures`.",
        ]
    lines += ["", "## Time", ""]
    if time_svg:
        lines += [_picture("Time", time_svg), ""]
    lines += ["| step | task runs | from | took |", "|---|--:|--:|--:|"]
    for time in report.steps:
        since = (time.started_at - report.steps[0].started_at).total_seconds()
        lines.append(f"| {time.step} | {time.task_runs} | {duration(since)} | {duration(time.seconds)} |")
    if sentence := waiting_sentence(report):
        lines += ["", sentence]
    if picture is not None:
        lines += ["", f"## {picture.title}", "", _picture(picture.title, picture.svg), "", picture.sentence]
    lines += ["", "## Outputs", "", f"In {code(printable(report.output_folder))} on {code(printable(report.host))}."]
    return "\n".join(lines)


def results_rows(report: RunReport) -> list[dict[str, str]]:
    """Give the table of results: a row for each of the first files that have one."""
    return [
        {
            "file": cut(printable(file.file.name)),
            "status": report.status_words[file.status],
            **{name: cell_text(cell) for name, cell in report.workload.columns(result).items()},
        }
        for file, result in report.with_result[:MAX_ROWS]
    ]


def cell_text(cell: Cell) -> str:
    """Write a cell as plain text."""
    if isinstance(cell, str):
        return cut(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    return ", ".join(" ".join(pair).strip() for pair in cell)


def results_json(report: RunReport) -> str:
    """Give the table of results as the data of a table artifact."""
    return json.dumps(results_rows(report))


def results_summary(report: RunReport) -> str:
    """Say what the table of results holds, and what it leaves out."""
    with_result = len(report.files) - report.count("failed")
    if with_result <= MAX_ROWS:
        return f"The results of {with_result:,} {'file' if with_result == 1 else 'files'}."
    return f"The results of the first {MAX_ROWS:,} of {with_result:,} files; those of all are in the outputs."


def failures_summary(report: RunReport) -> str:
    """Name the first failed files with the reason, in Markdown."""
    failures = report.failures
    named = [f"- {escaped(cut(failure.reason, 300))}" for failure in failures[:MAX_NAMED]]
    more = len(failures) - len(named)
    return "\n".join([*named, *([f"- and {more:,} more"] if more else [])])


def failures(report: RunReport) -> str:
    """Write the dossiers of the first failed files in Markdown, after a count of all by category."""
    failed = report.failed
    counts = Counter(file.error.category for file in failed if file.error is not None)
    lines = [
        f"# {len(failed):,} of {len(report.files):,} files failed",
        "",
        "| category | files | means |",
        "|---|--:|---|",
    ]
    lines += [f"| {category.value} | {count:,} | {MEANINGS[category]} |" for category, count in counts.most_common()]
    for failure, file in zip(report.failures[:MAX_DOSSIERS], failed, strict=False):
        lines += ["", *_failure_section(failure, file.file)]
    if len(failed) > MAX_DOSSIERS:
        rest = [cut(printable(file.file.name), 80) for file in failed[MAX_DOSSIERS : MAX_DOSSIERS + MAX_ROWS]]
        lines += ["", f"## {len(failed) - MAX_DOSSIERS:,} more", "", block("\n".join(rest))]
        if (unnamed := len(failed) - MAX_DOSSIERS - len(rest)) > 0:
            lines += ["", f"And {unnamed:,} that are not named here; `topn run --json` gives all."]
    return "\n".join(lines)


def _failure_section(failure: Failure, file: InputFile) -> list[str]:
    lines = [f"## {code(cut(failure.name))}", "", escaped(cut(failure.message, 1000)), ""]
    lines += [f"- {label}: {code(text)}" for label, text in failure.facts]
    lines.append(f"- content: {code(f'{file.size_bytes:,} bytes, SHA-256 {file.sha256}')}")
    for name, text in failure.logs:
        lines += ["", f"The last lines of {name}:", "", block(text)]
    if failure.repeat_command:
        lines += ["", "Repeat it where the files are:", "", block(failure.repeat_command)]
    return lines


def code(text: str) -> str:
    """Put a text into a code span, in which nothing is Markdown."""
    fence = "`" * (_longest_run_of_ticks(text) + 1)
    return f"{fence} {text} {fence}" if "`" in text or text.strip() != text or not text else f"{fence}{text}{fence}"


def block(text: str) -> str:
    """Put a text into a code block, in which nothing is Markdown."""
    fence = "`" * max(3, _longest_run_of_ticks(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def escaped(text: str) -> str:
    """Write a text so that nothing in it is Markdown or HTML."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def _longest_run_of_ticks(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _picture(title: str, svg: str) -> str:
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _usage_figures(usage: Usage) -> list[tuple[str, str, str]]:
    again = [
        f"{count:,} {what}"
        for count, what in ((usage.retries, "tried again"), (usage.requeues, "moved to another node"))
        if count
    ]
    figures = [
        ("Batch tasks completed", f"{usage.batch_tasks:,}", ", ".join(again)),
        ("Their running times", duration(usage.task_seconds), "added up"),
        ("Nodes seen", f"{usage.nodes:,}", f"{usage.preempted_nodes:,} preempted" if usage.preempted_nodes else ""),
    ]
    if usage.node_seconds is not None:
        spot = f"and {usage.spot_node_seconds / MINUTE_SECONDS:,.1f} spot" if usage.spot_node_seconds else ""
        figures.append(("Node-minutes", f"{usage.node_seconds / MINUTE_SECONDS:,.1f}", spot))
    return figures


def _span_seconds(report: RunReport) -> float:
    ends = [time.ended_at for time in report.steps]
    return (max(ends) - report.steps[0].started_at).total_seconds()
