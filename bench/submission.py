"""The flow's submission of Batch tasks, compared with the SDK's helper and with one request per Batch task.

The server is `localbatch` with simulated nodes. Each response is delayed by 50 ms, as over a network. As in the flow,
each thread adds 100 Batch tasks per request.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential

from bench.measure import ROUNDS, ratio_figures
from bench.simulated_azure import measure_with_local_azure
from flows.topn import MAX_THREADS
from tasks.azure.accounts import batch_account
from tasks.azure.batch import MAX_TASKS_PER_REQUEST
from tasks.azure.settings import load_settings
from tasks.azure.values import BatchTaskSpec, JobSpec

DELAY_SECONDS = 0.05
SIZES = (500, 1000, 2000)
# One request per Batch task would take minutes at the sizes above. Its rate does not depend on the number.
SINGLY_COUNT = 200

OURS, SDK, SINGLY = "as the flow does", "create_tasks of the SDK", "one request each"


def submission(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare the three ways at several sizes, in Batch tasks per second."""
    return measure_with_local_azure(folder, environment, "bench.submission", delay_seconds=DELAY_SECONDS)


def measure() -> dict[str, object]:
    """Measure with the configured Batch account."""
    account = batch_account()
    job_id = f"bench-{uuid.uuid4().hex}"
    account.create_job(
        JobSpec(
            job_id=job_id,
            # This pool does not exist, so the Batch tasks stay in the queue.
            pool_id="none",
            wall_clock_seconds=3600,
            metadata={},
        )
    )

    def ours(count: int) -> None:
        added = _specs(count)
        parts = [added[start : start + MAX_TASKS_PER_REQUEST] for start in range(0, count, MAX_TASKS_PER_REQUEST)]
        with ThreadPoolExecutor(MAX_THREADS) as threads:
            rejected = list(threads.map(lambda part: account.add_tasks(job_id, part), parts))
        if any(rejected):
            raise RuntimeError(f"rejected: {rejected}")

    settings = load_settings()
    key = settings.batch_key.get_secret_value() if settings.batch_key else ""
    # The client keeps ten connections, and logs a warning for each additional one.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    client = BatchClient(str(settings.batch_endpoint), AzureNamedKeyCredential(str(settings.batch_account), key))

    def by_the_sdk(count: int) -> None:
        tasks = [
            models.BatchTaskCreateOptions(id=spec.task_id, command_line=spec.command_line) for spec in _specs(count)
        ]
        client.create_tasks(job_id, tasks, max_concurrency=MAX_THREADS)

    def one_by_one(count: int) -> None:
        for spec in _specs(count):
            account.add_tasks(job_id, [spec])

    ways: dict[str, Callable[[int], None]] = {OURS: ours, SDK: by_the_sdk}
    rates: dict[int, dict[str, list[float]]] = {size: {name: [] for name in ways} for size in SIZES}
    singly: list[float] = []
    for _ in range(ROUNDS):
        for size, found in rates.items():
            for name, add in ways.items():
                found[name].append(_rate(add, size))
        singly.append(_rate(one_by_one, SINGLY_COUNT))
    added = ROUNDS * (len(ways) * sum(SIZES) + SINGLY_COUNT)
    counts = account.get_task_counts(job_id)
    if counts.active != added:
        raise RuntimeError(f"{added} Batch tasks were added, but the job has {counts.active}")
    return _figures(rates, singly)


def _specs(count: int) -> list[BatchTaskSpec]:
    """Return `count` Batch tasks with unique ids."""
    prefix = uuid.uuid4().hex
    return [
        BatchTaskSpec(task_id=f"{prefix}-{n}", command_line="true", resource_files=(), uploads=(), retries=0)
        for n in range(count)
    ]


def _figures(rates: Mapping[int, Mapping[str, Sequence[float]]], singly: Sequence[float]) -> dict[str, object]:
    """Return the rates, and the ratios within each round."""
    figures: dict[str, object] = {f"{SINGLY}, a second": _rate_figures(singly)}
    for size, found in rates.items():
        for name, measured in found.items():
            figures[f"{size} Batch tasks, {name}, a second"] = _rate_figures(measured)
        for name, others in (SDK, found[SDK]), (SINGLY, singly):
            ratios = [a / b for a, b in zip(found[OURS], others, strict=True)]
            figures[f"{size} Batch tasks, {OURS} / {name}"] = ratio_figures(ratios)
    return figures


def _rate_figures(rates: Sequence[float]) -> dict[str, object]:
    return {"median": round(statistics.median(rates)), "all": [round(rate) for rate in rates]}


def _rate(add: Callable[[int], None], count: int) -> float:
    started = time.monotonic()
    add(count)
    return count / (time.monotonic() - started)


if __name__ == "__main__":
    print(json.dumps(measure()))
