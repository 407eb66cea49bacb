"""Sphinx directives that generate the reference from the code."""

# ruff: noqa: SLF001 - argparse has no public API that lists its options.

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

# Settings other than those of the two accounts, and the function that reads each.
OTHER_SETTINGS = {
    "TOPN_STATE": "tasks.azure.settings:state_folder",
    "TOPN_RESULTS": "tasks.azure.settings:results_location",
    "TOPN_NOTICE_URL": "flows.notices:_webhook_url",
}

# Wider lines would need a scroll bar.
MAX_USAGE_COLUMNS = 88

BOUNDS = {
    "minimum": "at least {:,}",
    "exclusiveMinimum": "above {:,}",
    "maximum": "at most {:,}",
    "minItems": "at least {}",
    "pattern": "pattern `{}`",
}


def find(name: str) -> Any:
    """Return the object at `module:name`."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Render a table in Markdown."""
    cells = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" for row in cells)


def parameters(name: str) -> str:
    """Render the parameters of a flow, from the schema that Prefect stores."""
    return table(["parameter", "type", "default", "description"], _parameter_rows(find(name)))


def _parameter_rows(flow: Flow[..., Any]) -> Iterator[Sequence[str]]:
    for name, schema in flow.parameters.properties.items():
        kinds = _kinds(schema)
        bounds = [text.format(kind[bound]) for kind in kinds for bound, text in BOUNDS.items() if bound in kind]
        is_none = schema.get("default") is None or "$ref" in schema
        default = "none" if is_none else f"`{json.dumps(schema['default'])}`"
        yield f"`{name}`", ", ".join([_type(kinds[0]), *bounds]), default, schema.get("description", "")


def fields(name: str) -> str:
    """Render the fields of a Pydantic model."""
    schema = find(name).model_json_schema()
    rows = [
        [f"`{field}`", _type(_kinds(each)[0]), f"`{json.dumps(each['default'])}`", each["description"]]
        for field, each in schema["properties"].items()
    ]
    return table(["field", "type", "default", "description"], iter(rows)).replace("`null`", "none")


def _kinds(schema: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return "object, see below"
    if "enum" in schema:
        return f"one of {', '.join(f'`{json.dumps(value)}`' for value in schema['enum'])}"
    of = f" of {schema['items'].get('type', 'value')}s" if "items" in schema else ""
    return f"{schema.get('type', 'any value')}{of}"


def settings(_: str) -> str:
    """Render the settings of the two accounts, with the descriptions of the Prefect block."""
    fields = AzureSettings.model_fields | find("tasks.azure.block:TopnAzure").model_fields
    rows = [[f"`TOPN_{name.upper()}`", fields[name].description] for name in AzureSettings.model_fields]
    return table(["setting", "description"], iter(rows))


def other_settings(_: str) -> str:
    """Render the other settings, with the docstring summaries of the functions that read them."""
    rows = [
        [f"`{name}`", str(inspect.getdoc(find(reader))).split("\n\n")[0]] for name, reader in OTHER_SETTINGS.items()
    ]
    return table(["setting", "description"], iter(rows))


def command(arguments: str) -> str:
    """Render the options of a subcommand. `arguments` is the function that creates the parser, and the subcommand."""
    parser_name, subcommand = arguments.split()
    [subparsers] = [action for action in find(parser_name)()._actions if isinstance(action, argparse._SubParsersAction)]
    parser: argparse.ArgumentParser = subparsers.choices[subcommand]
    helps = {choice.dest: choice.help for choice in subparsers._choices_actions}
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    usage = textwrap.fill(usage, MAX_USAGE_COLUMNS, subsequent_indent="    ", break_on_hyphens=False)
    description = parser.description or f"{str(helps[subcommand]).capitalize()}."
    groups = [(group.title, group._group_actions) for group in parser._action_groups if group._group_actions]
    tables = [table([str(title), "description"], _option_rows(parser, actions)) for title, actions in groups]
    return "\n\n".join([description, f"```text\n{usage}\n```", *tables])


def _option_rows(parser: argparse.ArgumentParser, actions: Sequence[argparse.Action]) -> Iterator[Sequence[str]]:
    for action in actions:
        name = action.metavar or action.dest.upper()
        if action.choices:
            name = "|".join(action.choices)
        value = "" if action.nargs == 0 or not action.option_strings else f" {name}"
        options = ", ".join(f"`{option}{value}`" for option in action.option_strings) or f"`{name}`"
        yield options, (action.help or "") % (vars(action) | {"prog": parser.prog})


def text(name: str) -> str:
    """Render a string constant of the code as it is."""
    return f"```text\n{find(name)}\n```"


class GeneratedContent(SphinxDirective):
    """A directive whose Markdown a function renders from the directive's argument."""

    optional_arguments = 1
    final_argument_whitespace = True
    renderers: ClassVar = {
        "parameters": parameters,
        "fields": fields,
        "settings": settings,
        "other-settings": other_settings,
        "command": command,
        "text": text,
    }

    def run(self) -> list[nodes.Node]:
        """Parse the rendered Markdown."""
        return self.parse_text_to_nodes(self.renderers[self.name](*self.arguments or [""]))


class Transitions(SphinxDirective):
    """A directive that renders a Mermaid state diagram as a table."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Parse the transitions of the diagram."""
        arrows = re.findall(r"^\s*(\S+) --> (\w+)(?:: (.*))?$", "\n".join(self.content), re.MULTILINE)
        rows = [("(new)" if start == "[*]" else start, event, target) for start, target, event in arrows]
        return self.parse_text_to_nodes(table(["state", "event", "next state"], iter(rows)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives, and replace each Prefect task by its function, so that autodoc documents it."""
    for name in GeneratedContent.renderers:
        app.add_directive(name, GeneratedContent)
    app.add_directive("mermaid", Transitions)
    for module in (importlib.import_module(found.name) for found in pkgutil.walk_packages(tasks.__path__, "tasks.")):
        for name, member in list(vars(module).items()):
            if isinstance(member, Task):
                setattr(module, name, member.fn)
    return {"parallel_read_safe": True}
