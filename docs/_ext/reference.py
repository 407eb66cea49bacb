"""Writes the reference from the code, while Sphinx builds the site: nothing of it is kept in a file."""

# ruff: noqa: SLF001 - argparse tells of its options in no other way.

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from docutils import nodes
from prefect import Flow, Task
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import tasks
from tasks.azure.settings import AzureSettings

# Settings that are no part of the two accounts, and what reads each.
OTHER_SETTINGS = {
    "TOPN_STATE": "tasks.azure.settings:state_folder",
    "TOPN_RESULTS": "tasks.azure.settings:results_location",
    "TOPN_NOTICE_URL": "flows.notices:_webhook_url",
}

# What a page shows without a scroll bar.
USAGE_COLUMNS = 88

BOUNDS = {"minimum": "at least {:,}", "maximum": "at most {:,}", "minItems": "at least {}", "pattern": "like `{}`"}


def find(name: str) -> Any:
    """Give what `module:name` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    cells = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" for row in cells)


def parameters(name: str) -> str:
    """Write the parameters of a flow, as the Prefect server knows them."""
    return table(["parameter", "is", "unless given", "means"], _parameter_rows(find(name)))


def _parameter_rows(flow: Flow[..., Any]) -> Iterator[Sequence[str]]:
    for name, schema in flow.parameters.properties.items():
        kinds = _kinds(schema)
        bounds = [text.format(kind[bound]) for kind in kinds for bound, text in BOUNDS.items() if bound in kind]
        is_none = schema.get("default") is None or "$ref" in schema
        default = "nothing" if is_none else f"`{json.dumps(schema['default'])}`"
        yield f"`{name}`", ", ".join([_type(kinds[0]), *bounds]), default, schema.get("description", "")


def fields(name: str) -> str:
    """Write the fields of a model."""
    schema = find(name).model_json_schema()
    rows = [
        [f"`{field}`", _type(_kinds(each)[0]), f"`{json.dumps(each['default'])}`", each["description"]]
        for field, each in schema["properties"].items()
    ]
    return table(["field", "is", "unless given", "means"], iter(rows)).replace("`null`", "nothing")


def _kinds(schema: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return "an object, see below"
    if "enum" in schema:
        return f"one of {', '.join(f'`{json.dumps(value)}`' for value in schema['enum'])}"
    of = f" of {schema['items'].get('type', 'value')}s" if "items" in schema else ""
    return f"{schema.get('type', 'any value')}{of}"


def settings(_: str) -> str:
    """Write the settings of the two accounts, with the words of the Prefect block's form."""
    fields = AzureSettings.model_fields | find("tasks.azure.block:TopnAzure").model_fields
    rows = [[f"`TOPN_{name.upper()}`", fields[name].description] for name in AzureSettings.model_fields]
    return table(["setting", "means"], iter(rows))


def other_settings(_: str) -> str:
    """Write the settings that stand in the environment only, with the words of what reads them."""
    rows = [
        [f"`{name}`", str(inspect.getdoc(find(reader))).split("\n\n")[0]] for name, reader in OTHER_SETTINGS.items()
    ]
    return table(["setting", "means"], iter(rows))


def command(arguments: str) -> str:
    """Write the options of a command; given are its parser, and the word that leads to the command."""
    parser_name, word = arguments.split()
    [subparsers] = [action for action in find(parser_name)()._actions if isinstance(action, argparse._SubParsersAction)]
    parser: argparse.ArgumentParser = subparsers.choices[word]
    helps = {choice.dest: choice.help for choice in subparsers._choices_actions}
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    usage = textwrap.fill(usage, USAGE_COLUMNS, subsequent_indent="    ", break_on_hyphens=False)
    described = parser.description or f"{str(helps[word]).capitalize()}."
    return f"{described}\n\n```text\n{usage}\n```\n\n" + table(["option", "does"], _option_rows(parser))


def _option_rows(parser: argparse.ArgumentParser) -> Iterator[Sequence[str]]:
    for action in parser._actions:
        name = action.metavar or action.dest.upper()
        if action.choices:
            name = "|".join(action.choices)
        value = "" if action.nargs == 0 or not action.option_strings else f" {name}"
        options = ", ".join(f"`{option}{value}`" for option in action.option_strings) or f"`{name}`"
        yield options, action.help or ""


def text(name: str) -> str:
    """Show a text of the code as it is."""
    return f"```text\n{find(name)}\n```"


class Written(SphinxDirective):
    """A directive whose Markdown a function writes, of the directive's argument."""

    optional_arguments = 1
    final_argument_whitespace = True
    writers: ClassVar = {
        "parameters": parameters,
        "fields": fields,
        "settings": settings,
        "other-settings": other_settings,
        "command": command,
        "text": text,
    }

    def run(self) -> list[nodes.Node]:
        """Parse what is written."""
        return self.parse_text_to_nodes(self.writers[self.name](*self.arguments or [""]))


class Transitions(SphinxDirective):
    """A state diagram of Mermaid, as a table."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Read the arrows."""
        arrows = re.findall(r"^\s*(\S+) --> (\w+)(?:: (.*))?$", "\n".join(self.content), re.MULTILINE)
        rows = [("(new)" if start == "[*]" else start, event, target) for start, target, event in arrows]
        return self.parse_text_to_nodes(table(["state", "event", "next state"], iter(rows)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives; in the build's process, steps are the functions that they were before Prefect took them."""
    for name in Written.writers:
        app.add_directive(name, Written)
    app.add_directive("mermaid", Transitions)
    for module in (importlib.import_module(found.name) for found in pkgutil.walk_packages(tasks.__path__, "tasks.")):
        for name, member in list(vars(module).items()):
            if isinstance(member, Task):
                setattr(module, name, member.fn)
    return {"parallel_read_safe": True}
