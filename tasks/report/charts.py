"""The time chart of a run, an SVG document without fonts or scripts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from tasks.report.markdown import MINUTE_SECONDS, duration
from tasks.report.model import WAITING_STEP, RunReport, StepTime, Usage
from tasks.report.price import HOUR_SECONDS
from tasks.workload.drawing import ACCENT, AREA, FAINT, ROW_INCHES, STYLE, WAITING, WIDTH_INCHES, render_svg

# Distances between the ticks of a time axis.
TICK_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
MAX_TICKS = 9


def time_picture(report: RunReport) -> str:
    """Draw when each step ran and, below it, the number of running Batch tasks."""
    return _time_picture(report.steps, report.usage)


# The page and the artifact of a run have the same picture.
@lru_cache(maxsize=1)
def _time_picture(steps: tuple[StepTime, ...], usage: Usage | None) -> str:
    with mpl.rc_context(STYLE):
        start = steps[0].started_at
        end = max(time.ended_at for time in steps)
        span_seconds = max(0.1, (end - start).total_seconds())
        has_tasks = usage is not None and bool(usage.running)
        heights = [ROW_INCHES * len(steps), 1.1] if has_tasks else [ROW_INCHES * len(steps)]
        figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + 0.9), layout="constrained")
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        _draw_steps(axes[0], steps, usage, start, span_seconds)
        if usage is not None and has_tasks:
            _draw_running(axes[1], usage, start)
        axes[-1].set_xlim(0, span_seconds * 1.12)
        spacing = next((s for s in TICK_SECONDS if span_seconds * 1.12 / s <= MAX_TICKS), TICK_SECONDS[-1])
        axes[-1].xaxis.set_major_locator(MultipleLocator(spacing))
        axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _tick_label(seconds)))
        return render_svg(figure)


def _draw_steps(
    axes: Any, steps: Sequence[StepTime], usage: Usage | None, start: datetime, span_seconds: float
) -> None:
    for row, time in enumerate(steps):
        since = (time.started_at - start).total_seconds()
        # Keep very short steps visible.
        width = max(time.seconds, span_seconds / 300)
        axes.broken_barh([(since, width)], (row - 0.35, 0.7), facecolor=ACCENT)
        if time.step == WAITING_STEP and usage is not None:
            spans = _idle_spans(usage.running, time.started_at, time.ended_at)
            shifted = [(since + offset, length) for offset, length in spans]
            axes.broken_barh(shifted, (row - 0.35, 0.7), facecolor=WAITING)
            axes.legend(handles=[Patch(color=WAITING, label="no Batch task runs")], loc="upper right", frameon=False)
        axes.text(since + width + span_seconds / 120, row, duration(time.seconds), va="center")
    axes.set_yticks(range(len(steps)), [time.step for time in steps])
    axes.set_ylim(len(steps) - 0.4, -0.6)
    axes.tick_params(left=False, bottom=False)
    axes.grid(axis="x", color=FAINT, alpha=0.3)
    axes.set_axisbelow(True)


def _draw_running(axes: Any, usage: Usage, start: datetime) -> None:
    seconds = [(instant - start).total_seconds() for instant, _ in usage.running]
    counts = [count for _, count in usage.running]
    axes.fill_between(seconds, counts, step="post", color=AREA, alpha=0.9, linewidth=0)
    axes.step(seconds, counts, where="post", color=ACCENT, linewidth=1)
    axes.set_ylabel("Batch tasks\nrunning")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", color=FAINT, alpha=0.3)
    axes.set_axisbelow(True)


def _idle_spans(running: Sequence[tuple[datetime, int]], start: datetime, end: datetime) -> list[tuple[float, float]]:
    """Return offset and length, in seconds, of each span between `start` and `end` in which no Batch task ran."""
    changes = [(start, 0), *(change for change in running if start < change[0] < end), (end, 0)]
    return [
        ((since - start).total_seconds(), (until - since).total_seconds())
        for (since, count), (until, _) in pairwise(changes)
        if count == 0
    ]


def _tick_label(seconds: float) -> str:
    if seconds >= HOUR_SECONDS:
        return f"{seconds / HOUR_SECONDS:g} h"
    return f"{seconds / MINUTE_SECONDS:g} min" if seconds >= MINUTE_SECONDS else f"{seconds:g} s"
