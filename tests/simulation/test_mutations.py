"""The listed mutations fit the product."""

from __future__ import annotations

import pytest
from tests_support import REPOSITORY

from simulation.mutations import MUTATIONS


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.area)
def test_mutation_changes_one_place(mutation):
    assert (REPOSITORY / mutation.path).read_text().count(mutation.before) == 1
