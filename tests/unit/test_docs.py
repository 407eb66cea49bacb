"""The documentation matches the code."""

from __future__ import annotations

import re

import pytest
from pages_support import NOT_RUN, PAGES, TUTORIAL, assert_shows, first_line, shown_in_the_readme, typed_on
from run_reports import counted, run_report
from tests_support import REPOSITORY, independent_count

from flows.cli.arguments import build_parser
from tasks.report.output_folder import write_outputs

README = (REPOSITORY / "README.md").read_text()


def test_readme_lists_every_run_option():
    commands = next(action for action in build_parser()._actions if action.dest == "command")
    for action in commands.choices["run"]._actions:
        for option in action.option_strings:
            assert option in {"-h", "--help"} or f"`{option}" in README, option


def test_readme_lists_every_setting():
    from tasks.azure.settings import AzureSettings  # noqa: PLC0415

    for field in AzureSettings.model_fields:
        assert f"TOPN_{field.upper()}" in README


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_links_between_documents_resolve(document):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_readme_shows_words_of_sample_texts():
    """The rows of the table equal an independent count."""
    for path in sorted((REPOSITORY / "data").glob("*.txt")):
        words, distinct, top = independent_count(path.read_text("utf-8"))
        row = next(line for line in README.splitlines() if line.startswith(path.name))
        shown = ", ".join(f"{word} {count}" for word, count in top)
        assert [cell.strip() for cell in row.split("│")][1:4] == [f"{words:,}", f"{distinct:,}", shown]


def test_every_field_report_has_test_or_reason():
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", (REPOSITORY / "docs/field.md").read_text(), re.MULTILINE)
    answered = set()
    for path in (REPOSITORY / "tests").rglob("*.py"):
        for numbers in re.findall(r"Field reports? ([\d, and]+):", path.read_text()):
            answered |= set(re.findall(r"\d+", numbers))
    assert [int(number) for number, _ in rows] == list(range(1, 35))
    assert [number for number, answer in rows if number not in answered] == [
        number for number, answer in rows if answer.startswith("No test:")
    ]


def test_make_run_output_in_readme_matches_tutorial():
    [shown] = [shown for command, shown in typed_on(TUTORIAL) if command.endswith("--keep-pool")]
    assert_shows(shown, "\n".join(shown_in_the_readme("make run")))


def test_skipped_commands_appear_on_pages():
    typed = {first_line(command) for page in PAGES for command, _ in typed_on(page)}
    assert set(NOT_RUN) - typed == set()


def test_every_failure_category_is_explained():
    from tasks.model.verdict import Category  # noqa: PLC0415

    page = (REPOSITORY / "docs" / "what-to-do-when.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [category.value for category in Category]


def test_results_page_loads_results(tmp_path, monkeypatch, capsys):
    """Run the Python examples of the page one after the other, on outputs with words that look like missing values."""
    monkeypatch.chdir(tmp_path)
    report = run_report(
        counted(1, "a.txt", (("null", 5), ("the", 3))), counted(2, "b.txt", (("null", 4),)), output_folder="results"
    )
    write_outputs(report, {"id": "run"}, lambda _: None)
    examples = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/results.md").read_text(), re.DOTALL)
    assert len(examples) == len(["pandas", "DuckDB", "the manifest"])
    for example in examples:
        exec(compile(example, "docs/results.md", "exec"), {})
        assert len(list(filter(None, example.splitlines()))) == 3
    pandas_shown, duckdb_shown = capsys.readouterr().out.split("the")[:2]
    assert pandas_shown.split()[-2:] == ["null", "9"]
    assert "9" in duckdb_shown
    assert "null" in duckdb_shown
