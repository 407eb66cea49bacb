"""The options of `topn`, compared with the parameters of the flow."""

from __future__ import annotations

import argparse
import inspect
from importlib import metadata

import pytest

from flows.cli.arguments import build_parser
from flows.topn import topn as topn_flow
from tasks.model.parameters import describe_bounds
from tasks.model.pool import DEFAULT_SETUP, NodeCount

# Options of the terminal only, and options with other names than their parameters.
NOT_PARAMETERS = {"help", "json", "ask"}
RENAMED = {"output": "output_folder", "report": "report_folder"}

COMMANDS = ("run", "plan", "check", "sweep", "log")
PARAMETERS = inspect.signature(topn_flow.fn).parameters
# What people change first, and the set-up of the pool.
FIRST = ["inputs", "num_words", "output_folder"]
LAST = ["vm_size", "slots_per_node", "pool_id", "pool"]


def parser_of(command):
    commands = next(action for action in build_parser()._actions if action.dest == "command")
    return commands.choices[command]


def actions_of(command):
    return parser_of(command)._actions


def parameter_of(action):
    return RENAMED.get(action.dest, action.dest)


def bounded_options():
    """Return each option with the values just outside the bounds of its parameter."""
    found = []
    for action in actions_of("run"):
        schema = topn_flow.parameters.properties.get(parameter_of(action), {})
        for kind in schema.get("anyOf", [schema]):
            for bound, step in (("minimum", -1), ("exclusiveMinimum", 0), ("maximum", 1)):
                if bound in kind:
                    option, value = action.option_strings[-1], kind[bound] + step
                    found.append(pytest.param(option, value, id=f"{action.dest} {bound}"))
    return found


def test_run_has_option_for_every_parameter():
    options = {parameter_of(action) for action in actions_of("run")} - NOT_PARAMETERS
    assert options == set(PARAMETERS)


@pytest.mark.parametrize("command", ["run", "plan", "check"])
def test_options_have_defaults_of_flow(command):
    for action in actions_of(command):
        if parameter_of(action) in set(PARAMETERS) - {"inputs"}:
            default = PARAMETERS[parameter_of(action)].default
            assert action.default == (None if default is DEFAULT_SETUP else default), action.dest


@pytest.mark.parametrize(("option", "value"), bounded_options())
def test_values_outside_bounds_are_refused(topn, option, value):
    done = topn("run", "a.txt", option, str(value))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"argument {'-n/' * (option == '--num-words')}{option}: '{value}' is not " in done.stderr


def test_many_options_have_bounds():
    assert len(bounded_options()) >= 15


def test_bounds_are_described_in_words():
    assert describe_bounds(NodeCount) == "an integer from 1 to 10,000"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_sentences_in_groups(command):
    parser = parser_of(command)
    for action in parser._actions:
        assert action.help[0].isupper(), action.help
        assert action.help.endswith("."), action.help
        default = action.default
        if default not in (None, argparse.SUPPRESS, True, False, []):
            assert "(default: " in action.help, action.dest
        group = next(group for group in parser._action_groups if action in group._group_actions)
        assert group.title not in {"options", "positional arguments"} or action.dest == "help"


def test_form_begins_with_what_changes_first():
    names = list(topn_flow.parameters.properties)
    by_position = sorted(names, key=lambda name: topn_flow.parameters.properties[name]["position"])
    assert names == by_position
    assert names[: len(FIRST)] == FIRST
    assert names[-len(LAST) :] == LAST


def test_version_is_that_of_distribution(topn):
    done = topn("--version")
    assert (done.returncode, done.stdout) == (0, f"topn {metadata.version('topn')}\n")
