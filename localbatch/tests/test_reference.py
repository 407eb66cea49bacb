"""The generated parts of docs/local-batch.md are up to date."""

from pathlib import Path

from localbatch import reference
from localbatch.account import states
from localbatch.api.routes import ROUTES

PAGE = Path(__file__).parents[2] / "docs" / "local-batch.md"


def test_page_is_up_to_date():
    page = PAGE.read_text()
    assert page == reference.generate(page), "run: python -m localbatch.reference docs/local-batch.md"


def test_page_has_all_operations_and_states():
    page = PAGE.read_text()
    assert all(f"| {route.operation} |" in page for route in ROUTES)
    for table in states.TABLES.values():
        for state, events in table.items():
            assert all(f"{state} --> {target}" in page for target in events.values())


def test_every_part_has_its_markers():
    page = PAGE.read_text()
    for name in reference.PARTS:
        assert page.count(f"<!-- {name}: generated -->\n") == page.count(f"\n<!-- end of {name} -->\n") == 1
    assert page.endswith(reference.generate(page)[-100:])
