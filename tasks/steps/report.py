"""Report: give every file its end, and write the outputs."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed

from tasks.errors import OutputError
from tasks.files import write_whole
from tasks.model.chunks import StagedChunk
from tasks.model.files import InputFile
from tasks.model.plan import Plan
from tasks.model.run import Run
from tasks.model.verdict import Category, FileError, FileReport, StoredResult, Verdict
from tasks.redaction import redacted
from tasks.report.artifacts import publish
from tasks.report.markdown import MAX_NAMED
from tasks.report.model import FilesFailedError, Price, RunReport, Usage
from tasks.report.timing import step_times
from tasks.steps.collect import Verdicts
from tasks.steps.step import step
from tasks.text import printable
from tasks.workload.base import Workload


@step("report")
def report_run(
    run: Run,
    plan: Plan,
    workload: Workload,
    verdicts: Verdicts,
    output_folder: str,
    price: Price,
    usage: Usage | None = None,
) -> RunReport:
    """Put the run together, files in input order, write each result's outputs, and show all in the Prefect UI."""
    flow_run_id = UUID(run.flow_run_id)
    counted = {file.content_key: file for chunk in plan.chunks for file in chunk.files}
    report = RunReport(
        run_name=run.name,
        workload=workload,
        files=tuple(_file_report(file, plan, verdicts, counted, workload) for file in plan.files),
        steps=step_times(flow_run_id),
        usage=usage,
        price=price,
        output_folder=os.path.abspath(output_folder),
        host=platform.node(),
    )
    refusals = write_all_outputs(Path(output_folder), report)
    publish(flow_run_id, report)
    if refusals:
        more = f"; and {len(refusals) - MAX_NAMED} more" if len(refusals) > MAX_NAMED else ""
        raise OutputError(
            f"{len(refusals)} outputs could not be written: {'; '.join(refusals[:MAX_NAMED])}{more}. "
            "The results are kept: run again with another output folder."
        )
    return report


def write_all_outputs(output_folder: Path, report: RunReport) -> list[str]:
    """Write the outputs of all files; one that cannot be written keeps none of the others from being so.

    Returns:
        Which output could not be written, and why.
    """
    inputs = {os.path.realpath(file.file.path) for file in report.files}
    refusals: list[str] = []
    for file in report.with_result:
        try:
            write_outputs(output_folder, report.workload, *file, inputs)
        except OSError as error:
            refusals.append(f"{printable(file[0].file.output)} ({error.strerror or error})")
    return refusals


def write_outputs(
    output_folder: Path, workload: Workload, report: FileReport, result: StoredResult, inputs: Collection[str] = ()
) -> None:
    """Write what a workload makes of a file's result below the output folder, each moved into place when whole.

    Nothing is written through a link that leads out of the folder, and no input is replaced.

    Raises:
        OSError: It cannot be written, or may not.
    """
    for ending, content in workload.documents(report.file, result).items():
        path = output_folder / f"{report.file.output}{ending}"
        folder = Path(os.path.realpath(path.parent))
        if not folder.is_relative_to(os.path.realpath(output_folder)):
            raise OSError(errno.ELOOP, "a link leads out of the output folder")
        if str(folder / path.name) in inputs:
            raise OSError(errno.EEXIST, "it would replace an input")
        write_whole(folder / path.name, content)


def gather(
    plan: Plan,
    staged: Sequence[PrefectFuture[StagedChunk]],
    submitted: Sequence[PrefectFuture[StagedChunk]],
    collected: Mapping[str, PrefectFuture[Verdicts]],
) -> Verdicts:
    """Wait for the steps of every chunk and take their verdicts; a step that failed gives its error to its files.

    Args:
        plan: What the run was to do.
        staged: The staging of each of the plan's chunks, in their order.
        submitted: The submission of each, in their order.
        collected: The collecting of each that came so far, by the chunk's key.
    """
    verdicts: dict[str, Verdict] = {}
    for chunk, stage, submit in zip(plan.chunks, staged, submitted, strict=True):
        collect = collected.get(chunk.key)
        error = (
            _error_of(stage, "staged", Category.RESOURCE_FILE)
            or _error_of(submit, "submitted", Category.NODE)
            or (_error_of(collect, "collected", Category.UPLOAD) if collect else None)
        )
        if error is not None:
            verdicts.update({file.content_key: error for file in chunk.files})
        elif collect is not None:
            verdicts.update(collect.result())
    return verdicts


def _error_of(step: PrefectFuture[Any], what: str, category: Category) -> FileError | None:
    result: object = step.result(raise_on_failure=False)
    if not isinstance(result, BaseException):
        return None
    return FileError(category=category, message=f"It could not be {what}: {redacted(str(result)).rstrip('.')}")


def final_state(report: RunReport) -> State[Any]:
    """Say how the flow run ended: completed, or failed with the names of the files that have no result.

    The data of a failed state is a FilesFailedError, which calling the flow raises.
    """
    failures = report.failures
    if not failures:
        return Completed(message=report.headline, data=report)
    named = "; ".join(failure.reason for failure in failures[:MAX_NAMED])
    more = f"; and {len(failures) - MAX_NAMED} more" if len(failures) > MAX_NAMED else ""
    error = FilesFailedError(f"{len(failures)} of {len(report.files)} files failed: {named}{more}.", report)
    return Failed(message=str(error), data=error)


def _file_report(
    file: InputFile, plan: Plan, verdicts: Verdicts, counted: Mapping[str, InputFile], workload: Workload
) -> FileReport:
    if (known := plan.unchanged.get(file.content_key)) is not None:
        return FileReport(file=file, verdict=known, unchanged=True)
    verdict = verdicts.get(file.content_key)
    if isinstance(verdict, StoredResult):
        return FileReport(file=file, verdict=verdict)
    error = verdict or FileError(category=Category.CANCELLED, message="The run ended before it was submitted")
    return FileReport(file=file, verdict=_own(error, counted.get(file.content_key), file, workload))


def _own(error: FileError, counted: InputFile | None, file: InputFile, workload: Workload) -> FileError:
    """Return the error of a content as that of one of the files that have it: names of the others are replaced."""
    if counted is None or counted.name == file.name:
        return error
    message = error.message.replace(printable(counted.name), printable(file.name), 1)
    command = error.repeat_command and workload.repeat_command(file)
    return replace(error, message=message, repeat_command=command)
