"""Names of runs: those of users stay."""

from __future__ import annotations

import pytest
from prefect.utilities.names import generate_slug

from tasks.report.artifacts import is_made_up


@pytest.mark.parametrize(
    "name",
    [
        # The run forms of Prefect's two UIs fill these in.
        "xi-orionis",
        "alpha312-ursae-majoris-b",
        "Tasty-Zebu",
        "Small-Akita",
        # An earlier attempt of the run has these.
        "working on data/*.txt",
        "1,200 files: 1,199 counted, 1 failed",
        "1 file: 1 unchanged",
        "2 files: 2 failed: a.txt is not UTF-8 text",
        "failed: missing.txt does not exist",
        "cancelled",
    ],
    ids=str,
)
def test_made_up_names_are_replaced(name):
    assert is_made_up(name)


@pytest.mark.parametrize(
    "name",
    [
        "March invoices",
        "my-run",
        "test-run",
        "nightly",
        "run 7",
        "2026-11-29",
        "alphabet-soup",
        "5 files",
        "failed-again",
        "",
    ],
)
def test_names_of_users_stay(name):
    assert not is_made_up(name)


def test_every_name_of_prefect_is_known():
    assert [name for name in (generate_slug(2) for _ in range(1000)) if not is_made_up(name)] == []
