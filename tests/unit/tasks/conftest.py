"""A run without resources in any account."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone

import pytest

from tasks.model.run import Keep, Run


@pytest.fixture
def run():
    return Run(
        flow_run_id=str(uuid.uuid4()),
        generation=0,
        deadline_at=datetime.now(timezone.utc) + timedelta(minutes=10),
        keep=Keep(),
    )
