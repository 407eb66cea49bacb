"""Random request failures and lost replies change no result and leave no resources.

The simulation covers many more cases. Here, real sockets close, and real clients time out and reconnect.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_support import independent_count, resources_of_runs, wait_until

FILES = 6
TENTH = 0.1
FAULTS = {
    "refused": {"fault": "answer", "status": 503, "code": "ServerBusy"},
    "lost replies": {"fault": "drop_after"},
}

pytestmark = pytest.mark.xdist_group("failing_azure")


@pytest.mark.parametrize("kind", FAULTS)
def test_run_survives_failing_requests(topn, failing_azure, kind):
    """Field reports 15 and 25: a failed request is retried and is not a verdict on a file."""
    texts = {f"{number}.txt": f"{kind} x{number} same " * (number + 1) for number in range(FILES)}
    for name, text in texts.items():
        Path(name).write_text(text)
    fault = {**FAULTS[kind], "operation": "*", "probability": TENTH, "seed": 1}
    scripts = (failing_azure.faults, failing_azure.storage_faults)
    for script in scripts:
        script.add(**fault)

    try:
        found = topn.json("*.txt", "--files-per-task", "1", **failing_azure.environment)
        fired = [script.listing()[0]["fired"] for script in scripts]
    finally:
        for script in scripts:
            script.clear()

    assert min(fired) > 0
    for file in found["files"]:
        expected = independent_count(texts[Path(file["file"]).name])
        assert (file["words"], file["distinct"], file["top"]) == expected
    with topn.environ(**failing_azure.environment):
        # The reply to a deletion may be lost, too, but the deletion continues.
        wait_until(lambda: resources_of_runs() == set(), "all resources of the run to be deleted")
