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

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)

NONSTANDARD_VERBS = re.compile(r"(Give|Say|Tell|Take|Have|Ask)\b")
NONSTANDARD_PREFIXES = re.compile(r"_?(MOST|LONGEST|LEAST)_")
MAX_WORDS = 8
MAX_MEDIAN_WORDS = 6


@pytest.fixture(scope="module")
def nodes():
    """The nodes of all files that have a docstring or a name, each with its place."""
    found = []
    for path in sorted({path for pattern in PATTERNS for path in REPOSITORY.glob(pattern)}):
        name = path.relative_to(REPOSITORY)
        named = (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, (*DOCUMENTED, ast.Name)))
        found += [(node, f"{name}:{getattr(node, 'lineno', 1)}") for node in named]
    return found


@pytest.fixture(scope="module")
def names_of_tests(nodes):
    """The names of all tests, each with its place."""
    return [
        (node.name, place) for node, place in nodes if isinstance(node, FUNCTIONS) and node.name.startswith("test_")
    ]


def word_count(name):
    return len(name.removeprefix("test_").split("_"))


def test_docstrings_begin_with_standard_verbs(nodes):
    docstrings = [(ast.get_docstring(node), place) for node, place in nodes if isinstance(node, DOCUMENTED)]
    assert [(text, place) for text, place in docstrings if text and NONSTANDARD_VERBS.match(text)] == []


def test_constants_have_standard_prefixes(nodes):
    names = [(node.id, place) for node, place in nodes if isinstance(node, ast.Name)]
    assert [(name, place) for name, place in names if NONSTANDARD_PREFIXES.match(name)] == []


def test_names_of_tests_are_short(names_of_tests):
    assert [(name, place) for name, place in names_of_tests if word_count(name) > MAX_WORDS] == []
    assert median(word_count(name) for name, _ in names_of_tests) <= MAX_MEDIAN_WORDS
