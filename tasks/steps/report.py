"""Create the report of a run, and write the outputs of its files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.futures import PrefectFuture
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.utilities.urls import url_for
from pydantic import TypeAdapter

from tasks.azure.block import block_of_run
from tasks.azure.settings import use_block
from tasks.clock import service_time
from tasks.errors import OutputError, TopnError
from tasks.model.chunks import Chunk, StagedChunk
from tasks.model.corpus import Merges
from tasks.model.files import InputFile
from tasks.model.inputs import LocalFiles
from tasks.model.plan import Plan
from tasks.model.run import Run
from tasks.model.verdict import NOT_SUBMITTED, Category, FileError, FileReport, StoredResult, Verdict, counted
from tasks.redaction import redact
from tasks.report.artifacts import publish
from tasks.report.comparison import compare
from tasks.report.events import emit_end
from tasks.report.folders import Folder, open_folder
from tasks.report.history import previous_run, with_history
from tasks.report.manifest import PAGE
from tasks.report.markdown import MAX_LISTED
from tasks.report.model import FilesFailedError, Price, RunReport, Usage
from tasks.report.output_folder import documents_before, read_manifest, write_outputs
from tasks.report.price import estimate_usd
from tasks.report.timing import step_times
from tasks.steps.collect import Verdicts
from tasks.steps.merge import corpus_verdict
from tasks.steps.step import call_hook, file_error, log, log_unexpected, result_or_error, step, warn
from tasks.text import printable, shorten
from tasks.workload.base import Corpus, Workload
from tasks.workload.results_store import results_store

# Reasons in the message of the final state. The log has more, and the artifact has the details.
MAX_REASONS = 3


@step("report")
def report_run(
    run: Run,
    plan: Plan,
    workload: Workload,
    verdicts: Verdicts,
    local: LocalFiles,
    price: Price,
    merges: Merges,
    merged: Verdicts,
    usage: Usage | None = None,
) -> RunReport:
    """Create the report of a run, write the outputs, and publish the report in the Prefect UI.

    Raises:
        OutputError: Some outputs could not be written.
    """
    flow_run_id = UUID(run.flow_run_id)
    processed = {file.content_key: file for chunk in plan.chunks for file in chunk.files}
    folder = open_folder(local.output_folder)
    files = tuple(_file_report(file, plan, verdicts, processed, workload) for file in plan.files)
    report = RunReport(
        run_name=run.name,
        workload=workload,
        files=files,
        corpus=_corpus(merges, merged, files, folder, run),
        steps=step_times(flow_run_id),
        usage=usage,
        price=price,
        output_folder=str(folder),
        host=folder.host,
        log_unexpected=log_unexpected,
    )
    about = _describe_run(run, report)
    page = (open_folder(local.report_folder, name="The report folder"), PAGE) if local.report_folder else None
    manifest, errors, before = write_outputs(report, about, log_unexpected, local.table, page)
    history = with_history(manifest, report)
    store = results_store(run.flow_run_id, warn)
    store.put_manifest(run.flow_run_id, history.blocks())
    previous = previous_run(before, run.flow_run_id, store.files)
    report = replace(
        report,
        parameters=about["parameters"],
        run_url=url_for("flow-run", obj_id=flow_run_id) or "",
        comparison=compare(previous, history) if previous else None,
        unwritten=tuple(errors),
    )
    if page is not None:
        report = _write_page(report, *page, is_listed=folder.reference(*page) in manifest.documents)
    publish(flow_run_id, report, next(iter(errors), ""))
    for reason in _reasons(report, MAX_LISTED) if report.is_failed else ():
        log(reason, logging.ERROR)
    log(f"The outputs are in {report.output_folder}.")
    if errors:
        more = f"; and {len(errors) - MAX_LISTED} more" if len(errors) > MAX_LISTED else ""
        raise OutputError(
            f"{'; '.join(errors[:MAX_LISTED])}{more} could not be written. The results are stored. Run again to write them, "
            "perhaps with another output folder."
        )
    emit_end(run.flow_run_id, report, about["usd"])
    return report


def _write_page(report: RunReport, folder: Folder, name: str, *, is_listed: bool) -> RunReport:
    """Write the HTML page, and return the report with its place. A page that cannot be written causes a warning."""
    from tasks.report.html import write_page  # noqa: PLC0415 - imports matplotlib, which is slow

    if not is_listed:
        warn("The report was not written, because the manifest of the output folder, which has to list it, was not.")
        return report
    try:
        write_page(report, folder)
        return replace(report, page=printable(folder.full_path(name)))
    except (OSError, TopnError) as error:
        reason = (error.strerror or "") if isinstance(error, OSError) else redact(str(error))
    except Exception as error:  # noqa: BLE001 - an error of a workload may not fail the run at its end
        log_unexpected(error)
        reason = f"unexpected {type(error).__name__}, see the log of the run"
    warn(f"The report {printable(folder.shown(name))} could not be written: {printable(reason).rstrip('.')}.")
    return report


def report_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Replace the page of an earlier run if this run ended before its report. This is a hook of the flow.

    Only a page that the manifest of the output folder lists is replaced. An error is logged, because the run has ended.
    """
    output_folder, report_folder = (flow_run.parameters.get(name) for name in ("output_folder", "report_folder"))
    if not report_folder:
        return
    logger = flow_run_logger(flow_run)
    try:
        with use_block(block_of_run(flow, flow_run.parameters)):
            outputs, folder = open_folder(str(output_folder)), open_folder(str(report_folder), name="The report folder")
        manifest = read_manifest(outputs)
        is_reported = manifest.run.get("id") == str(flow_run.id) and manifest.status != "running"
        if is_reported or outputs.reference(folder, PAGE) not in manifest.documents:
            return
        from tasks.report.html import render_failure  # noqa: PLC0415 - imports matplotlib, which is slow

        ended = "was cancelled" if state.is_cancelled() else (state.name or "failed").lower()
        page = render_failure(
            outputs,
            flow_run.parameters,
            headline=f"The run {ended} before its report",
            state=(state.name or "failed").lower(),
            message=redact(state.message or "Its last state has no message."),
            ended=f"{state.timestamp:%A, %-d %B %Y, %H:%M UTC}",
            run_name=flow_run.name,
            run_url=url_for("flow-run", obj_id=flow_run.id) or "",
        )
        folder.write(PAGE, page.encode())
    except TopnError as error:
        logger.error("The page of the last run could not be replaced: %s", redact(str(error)))  # noqa: TRY400 - expected
    except Exception:  # The resources of the run are deleted all the same.
        logger.exception("The page of the last run could not be replaced.")


def _corpus(
    merges: Merges, merged: Verdicts, files: Sequence[FileReport], folder: Folder, run: Run
) -> Corpus | FileError | None:
    verdict = corpus_verdict(merges, merged)
    if isinstance(verdict, FileError) and service_time() > run.deadline_at:
        return FileError(
            category=Category.WALL_CLOCK,
            message="The run's deadline passed before the partials of all files were merged",
        )
    if not isinstance(verdict, StoredResult):
        return verdict
    return Corpus(
        result=verdict,
        files=tuple(file.file for file in files if file.result is not None),
        failed=tuple(file.file.name for file in files if file.error is not None),
        previous=documents_before(folder, run.flow_run_id),
    )


def _describe_run(run: Run, report: RunReport) -> dict[str, Any]:
    """Return what the manifest says about a run."""
    usage, price = report.usage, report.price
    return {
        "id": run.flow_run_id,
        "workload": report.workload.name,
        "parameters": TypeAdapter(dict[str, Any]).dump_python(flow_run.parameters, mode="json", fallback=str),
        "started_at": run.started_at.isoformat(),
        "ended_at": service_time().isoformat(timespec="seconds"),
        "usd": estimate_usd(usage, price) if usage and price and price.is_paid else None,
    }


def collect_verdicts(
    chunks: Sequence[Chunk],
    staged: Sequence[PrefectFuture[StagedChunk]],
    submitted: Sequence[PrefectFuture[StagedChunk]],
    collected: Mapping[str, PrefectFuture[Verdicts]],
) -> dict[str, Verdict]:
    """Wait for the steps of every chunk and return the verdicts; if a step failed, its files get the error.

    Args:
        chunks: The chunks.
        staged: The stage step of each chunk, in the same order.
        submitted: The submit step of each chunk, in the same order.
        collected: The collect steps, by chunk key; a chunk that failed earlier has none.
    """
    verdicts: dict[str, Verdict] = {}
    for chunk, stage, submit in zip(chunks, staged, submitted, strict=True):
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


def _error_of(step: PrefectFuture[Any], participle: str, category: Category) -> FileError | None:
    result = result_or_error(step)
    return file_error(result, participle, category) if isinstance(result, BaseException) else None


def final_state(report: RunReport) -> State[Any]:
    """Return the final state of the flow run: completed, or failed with the reasons of the first failed files.

    The data of a failed state is a FilesFailedError, which a call of the flow raises.
    """
    if not report.is_failed:
        return Completed(message=report.headline, data=report)
    return failed_state(FilesFailedError(f"{'; '.join(_reasons(report, MAX_REASONS))}. {report.failure}.", report))


def failed_state(error: TopnError) -> State[Any]:
    """Return the final state of a flow run that failed with an error of topn, whose message is all that a user needs."""
    return Failed(message=redact(str(error)), data=error)


def _reasons(report: RunReport, limit: int) -> list[str]:
    """Return why the first files failed, and the number of the others."""
    reasons = [shorten(failure.reason, 300).rstrip(".") for failure in report.describe_failures(limit)]
    more = len(report.failed) + (report.corpus_failure is not None) - len(reasons)
    return [*reasons, f"and {more:,} more"] if more else reasons


def _file_report(
    file: InputFile, plan: Plan, verdicts: Verdicts, processed: Mapping[str, InputFile], workload: Workload
) -> FileReport:
    if (known := plan.unchanged.get(file.content_key)) is not None:
        return FileReport(file=counted(file, known), verdict=known, unchanged=True)
    verdict = plan.failures.get(file.content_key) or verdicts.get(file.content_key)
    if isinstance(verdict, StoredResult):
        return FileReport(file=counted(file, verdict), verdict=verdict)
    error = verdict or NOT_SUBMITTED
    return FileReport(file=file, verdict=_rename(error, processed.get(file.content_key), file, workload))


def _rename(error: FileError, processed: InputFile | None, file: InputFile, workload: Workload) -> FileError:
    """Return the error of a processed file for another file with the same content, under the name of that file."""
    if processed is None or processed.name == file.name:
        return error
    message = error.message.replace(printable(processed.name), printable(file.name), 1)
    command = error.repeat_command and call_hook(workload, workload.repeat_command, "", file)
    return replace(error, message=message, repeat_command=command)
