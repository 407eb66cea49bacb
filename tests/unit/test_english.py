"""Rules for names and docstrings, checked on the Python files of this repository."""

from __future__ import annotations

import ast
import re
from statistics import median

import pytest
from tests_support import REPOSITORY

PATTERNS = tuple(
    f"{folder}/**/*.py"
    for folder in ("flows", "tasks", "task_script", "localbatch/src", "localbatch/tests", "tests", "bench")
)

NONSTANDARD_VERBS = re.compile(r"(Give|Say|Tell|Take|Have|Ask)\b")
NONSTANDARD_PREFIXES = re.compile(r"_?(MOST|LONGEST|LEAST)_")
MAX_WORDS = 8
MAX_MEDIAN_WORDS = 6


@pytest.fixture(scope="module")
def nodes():
    """The nodes of the syntax trees of all files, each with its place."""
    paths = sorted({path for pattern in PATTERNS for path in REPOSITORY.glob(pattern)})
    return [
        (node, f"{path.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 1)}")
        for path in paths
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    ]


@pytest.fixture(scope="module")
def names_of_tests(nodes):
    """The names of all tests, each with its place."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (node.name, place) for node, place in nodes if isinstance(node, functions) and node.name.startswith("test_")
    ]


def word_count(name):
    return len(name.removeprefix("test_").split("_"))


def test_docstrings_begin_with_standard_verbs(nodes):
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [(ast.get_docstring(node), place) for node, place in nodes if isinstance(node, documented)]
    assert [(text, place) for text, place in docstrings if text and NONSTANDARD_VERBS.match(text)] == []


def test_constants_have_standard_prefixes(nodes):
    names = [(node.id, place) for node, place in nodes if isinstance(node, ast.Name)]
    assert [(name, place) for name, place in names if NONSTANDARD_PREFIXES.match(name)] == []


def test_names_of_tests_are_short(names_of_tests):
    assert [(name, place) for name, place in names_of_tests if word_count(name) > MAX_WORDS] == []
    assert median(word_count(name) for name, _ in names_of_tests) <= MAX_MEDIAN_WORDS
