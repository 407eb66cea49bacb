"""The texts of a run's artifacts, made from its report alone; each is bounded, however many files there are.

Names, words and what programs said are hostile here: they stand in code spans, code blocks and table cells only.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter

from tasks.model.verdict import Category, FileError, FileReport
from tasks.report.model import Price, RunReport, Usage
from tasks.text import cut, shown
from tasks.workload.base import Cell, Picture

MOST_ROWS = 500
MOST_DOSSIERS = 25
MOST_NAMED = 10

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
            failures_gist(report),
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
    lines += ["", "## Outputs", "", f"In {code(shown(report.output_folder))} on {code(shown(report.host))}."]
    return "\n".join(lines)


def results_rows(report: RunReport) -> list[dict[str, str]]:
    """Give the table of results: a row for each of the first files that have one."""
    return [
        {
            "file": cut(shown(file.file.name)),
            "status": report.status_words[file.status],
            **{name: cell_text(cell) for name, cell in report.workload.columns(result).items()},
        }
        for file, result in report.with_result[:MOST_ROWS]
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


def results_gist(report: RunReport) -> str:
    """Say what the table of results holds, and what it leaves out."""
    with_result = len(report.files) - report.count("failed")
    if with_result <= MOST_ROWS:
        return f"The results of {with_result:,} {'file' if with_result == 1 else 'files'}."
    return f"The results of the first {MOST_ROWS:,} of {with_result:,} files; those of all are in the outputs."


def failures_gist(report: RunReport) -> str:
    """Name the first failed files with the reason, in Markdown."""
    named = [f"- {escaped(cut(reason(file), 300))}" for file in report.failed[:MOST_NAMED]]
    more = len(report.failed) - len(named)
    return "\n".join([*named, *([f"- and {more:,} more"] if more else [])])


def failures(report: RunReport) -> str:
    """Write the dossiers of the first failed files in Markdown, after a count of all by category."""
    failed = report.failed
    counts = Counter(error_of(file).category for file in failed)
    lines = [
        f"# {len(failed):,} of {len(report.files):,} files failed",
        "",
        "| category | files | means |",
        "|---|--:|---|",
    ]
    lines += [f"| {category.value} | {count:,} | {MEANINGS[category]} |" for category, count in counts.most_common()]
    for file in failed[:MOST_DOSSIERS]:
        lines += ["", *_dossier(file)]
    if len(failed) > MOST_DOSSIERS:
        rest = [cut(shown(file.file.name), 80) for file in failed[MOST_DOSSIERS : MOST_DOSSIERS + MOST_ROWS]]
        lines += ["", f"## {len(failed) - MOST_DOSSIERS:,} more", "", block("\n".join(rest))]
        if (unnamed := len(failed) - MOST_DOSSIERS - len(rest)) > 0:
            lines += ["", f"And {unnamed:,} that are not named here; `topn run --json` gives all."]
    return "\n".join(lines)


# What each category says of where to look.
MEANINGS = {
    Category.PROGRAM: "the program failed on the node",
    Category.INPUT: "the program refuses the file: mend it",
    Category.RESOURCE_FILE: "the node could not fetch what it needs",
    Category.UPLOAD: "the output did not come back",
    Category.NODE: "the node or the service failed",
    Category.WALL_CLOCK: "the run's time was over",
    Category.PREEMPTED: "the node was taken away",
    Category.CANCELLED: "the run ended before its turn",
}


def reason(file: FileReport) -> str:
    """Say of a failed file which it is and why it failed, in one line."""
    name, message = name_and_message(file)
    return f"{name}: {message}" if shown(error_of(file).message) == message else f"{name} {message}"


def name_and_message(file: FileReport) -> tuple[str, str]:
    """Name a failed file, and say why it failed without naming it again."""
    name, message = shown(file.file.name), shown(error_of(file).message)
    return name, message.removeprefix(name).lstrip()


def error_of(file: FileReport) -> FileError:
    """Give a failed file's error."""
    return file.error or FileError(category=Category.NODE, message="no reason known")


def places(error: FileError) -> list[tuple[str, str]]:
    """Say where and how a failed file's program ran, each with its name."""
    found = [("category", error.category.value)]
    if error.exit_code is not None:
        found.append(("exit code", str(error.exit_code)))
    if error.attempts:
        found.append(("started", "once" if error.attempts == 1 else f"{error.attempts} times"))
    if error.node_id:
        found.append(("last on node", shown(error.node_id)))
    return found


def _dossier(file: FileReport) -> list[str]:
    error = error_of(file)
    lines = [f"## {code(cut(shown(file.file.name)))}", "", escaped(cut(shown(error.message), 1000)), ""]
    lines += [f"- {name}: {code(text)}" for name, text in places(error)]
    lines.append(f"- content: {code(f'{file.file.size_bytes:,} bytes, SHA-256 {file.file.sha256}')}")
    for name, said in (("stderr", error.stderr), ("stdout", error.stdout)):
        if said:
            lines += ["", f"The last lines of {name}:", "", block("\n".join(map(shown, said.splitlines())))]
    if error.repeat_command:
        lines += ["", "Repeat it where the files are:", "", block(shown(error.repeat_command))]
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
