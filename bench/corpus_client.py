"""The flow `topn`, whose node programs are measured one by one.

    python -m bench.corpus_client FOLDER OUTPUTS NUMBER LOG corpus|no-corpus

counts the texts of a folder like `topn run`, with servers of its own, and prints the usage of the run as JSON.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import State

from flows.servers.connect import connected
from flows.topn import run_workload, workload_flow
from tasks.workload.base import Workload
from tasks.workload.word_counts import word_count_workload

NODE_PROGRAM = Path(__file__).with_name("node_program.py")
TIMEOUT_MINUTES = 180


@workload_flow("topn")
def counts(inputs: list[str], output_folder: str, num_words: int, log: str, corpus: bool) -> State[Any]:
    """Count the words of each file, and of all files."""
    workload = measured(word_count_workload(num_words, ignore_case=False, corpus=corpus), log)
    return run_workload(workload, inputs, output_folder, timeout_minutes=TIMEOUT_MINUTES, corpus=corpus)


def measured(workload: Workload, log: str) -> Workload:
    """Return a workload whose programs are run by `node_program`."""

    def measure(command: str) -> str:
        measurer = shlex.join(["python3", "-I", "-S", str(NODE_PROGRAM), log])
        return command.replace("exec python3", f"exec {measurer} python3")

    merge = workload.merge
    if merge is not None:
        merge = replace(merge, command=measure(merge.command), corpus_command=measure(merge.corpus_command))
    command, pack_command = measure(workload.command), measure(workload.pack_command)
    return replace(workload, command=command, pack_command=pack_command, merge=merge)


def main() -> int:
    """Run the flow, and print its usage."""
    folder, outputs, number, log, corpus = sys.argv[1:]
    with connected():
        report: Any = counts([folder], outputs, int(number), log, corpus == "corpus")
    usage = report.usage
    print(json.dumps({"batch_tasks": usage.batch_tasks, "task_seconds": round(usage.task_seconds, 2)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
