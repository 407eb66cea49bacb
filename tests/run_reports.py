"""Factories for run reports, also with hostile names, words and messages."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta, timezone

from tasks.model.files import InputFile
from tasks.model.outputs import Outputs
from tasks.model.verdict import Category, FileError, FileReport, Provenance, StoredResult
from tasks.report.manifest import Entry
from tasks.report.model import WAITING_STEP, Price, RunReport, StepTime, Usage
from tasks.workload.base import Corpus
from tasks.workload.word_counts import CORPUS_OUTPUT, OUTPUT, word_count_workload

START = datetime(2026, 11, 22, 2, 0, tzinfo=timezone.utc)

HOSTILE = [
    "<script>alert(1)</script>",
    "</text></svg><img src=x onerror=alert(1)>",
    "`code` | cell | [link](http://127.0.0.1:1/) ![image](http://127.0.0.1:1/x.png)",
    "$x^2$ {{ 7 * 7 }} {% raw %}",
    "line\nbreak\x1b[31m\u202e",
    "| a | b |\n|---|---|",
    "```\n# heading",
    'quote" onmouseover="alert(1)',
    "&lt;b&gt;",
    "x" * 300,
]


PROVENANCE = Provenance(node_id="n", task_id="t", job_id="j", pool_id="p")


def at(seconds):
    return START + timedelta(seconds=seconds)


def written_file(folder, number, content, content_key, **more):
    """Write an input file to a folder, and return it."""
    path = folder / f"{number}.txt"
    path.write_bytes(content)
    return InputFile(
        path=str(path),
        name=path.name,
        output=f"{number}_OUTPUT",
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        content_key=content_key,
        **more,
    )


def input_file(number, name=None):
    name = name or f"file{number}.txt"
    return InputFile(
        path=f"/data/{name}",
        name=name,
        output=f"{name}_OUTPUT",
        sha256=f"{number:064x}",
        size_bytes=10 * number,
        content_key=hashlib.sha256(str(number).encode()).hexdigest(),
    )


def result_of(sha256, top, provenance=PROVENANCE):
    """Build a stored result as the task script would produce it."""
    document = {"sha256": sha256, "bytes": 10, "words": 1000, "distinct": 100, "top": top}
    return StoredResult(outputs=Outputs.of({OUTPUT: json.dumps(document).encode()}), provenance=provenance)


def counted(number, name=None, top=(("the", 3), ("of", 2)), *, unchanged=False):
    file = input_file(number, name)
    return FileReport(file=file, verdict=result_of(file.sha256, top), unchanged=unchanged)


def failed(number, name=None, message="The program ended with exit code 137", printed="", **error):
    return FileReport(
        file=input_file(number, name),
        verdict=FileError(
            **{
                "category": Category.PROGRAM,
                "message": message,
                "exit_code": 137,
                "attempts": 2,
                "node_id": "tvm1",
                "stderr": printed,
                "stdout": printed,
                "repeat_command": f"python -m task_script -- '/data/{name}'",
                **error,
            }
        ),
    )


def corpus_of(top, *, files=2, failed=(), before=None):
    """Build the corpus of a run; `before` are the words of the previous run."""
    document = {"words": 1000, "distinct": 100, "top": top}
    outputs = Outputs.of({CORPUS_OUTPUT: json.dumps(document).encode()})
    previous = {} if before is None else {"corpus.json": json.dumps(document | {"top": before}).encode()}
    result = StoredResult(outputs=outputs, provenance=PROVENANCE)
    return Corpus(result=result, files=tuple(map(input_file, range(files))), failed=failed, previous=previous)


def entry_of(number, **changes):
    """Build the entry of a file in a manifest."""
    file = input_file(number)
    return Entry(
        **{
            "name": file.name,
            "workload": "topn",
            "path": file.path,
            "etag": "",
            "sha256": file.sha256,
            "bytes": file.size_bytes,
            "status": "done",
            "error": None,
            "outputs": (),
            "run": "run",
            **changes,
        }
    )


def usage(**changes):
    return Usage(
        **{
            "batch_tasks": 7,
            "retries": 2,
            "requeues": 1,
            "running": ((at(60), 2), (at(80), 0), (at(90), 1), (at(100), 0)),
            "task_seconds": 50.0,
            "waited_seconds": 100.0,
            "idle_seconds": 70.0,
            "nodes": 2,
            "preemptions": 0,
            "node_seconds": 7200.0,
            "spot_node_seconds": 0.0,
            **changes,
        }
    )


PRICE = Price(usd_per_node_hour=0.5, source="set for this run", is_paid=True)


def run_report(*files, usage=None, price=PRICE, output_folder="/data/results", corpus=None):
    steps = (
        StepTime(step="plan", task_runs=1, started_at=at(0), ended_at=at(2)),
        StepTime(step=WAITING_STEP, task_runs=1, started_at=at(4), ended_at=at(104)),
    )
    return RunReport(
        run_name="topn-0123456789abcdef0123456789abcdef-0",
        workload=word_count_workload(3, ignore_case=False, corpus=corpus is not None),
        files=files,
        corpus=corpus,
        steps=steps,
        usage=usage,
        price=price,
        output_folder=output_folder,
        host="worker1",
    )


def hostile_report():
    """Build a report whose names, words and messages are all hostile; half of its files failed."""
    files = [
        counted(number, f"{number}{text}", tuple((f"{word}{number}", 9) for word in HOSTILE))
        for number, text in enumerate(HOSTILE)
    ]
    files += [failed(100 + number, f"{number}{text}", text, printed=text) for number, text in enumerate(HOSTILE)]
    words = tuple((word, 9) for word in HOSTILE)
    corpus = corpus_of(words, failed=tuple(file.file.name for file in files if file.error), before=words[:3])
    return run_report(*files, usage=usage(), output_folder="/data/`\n\n# <b>heading</b>", corpus=corpus)
