"""The additional information of errors of Batch."""

from __future__ import annotations

import json

import pytest

from tasks.azure.error_values import MAX_VALUE_LENGTH, read_error_values

GENERATION = "The selected VM size 'Standard_D1_v2' cannot boot Hypervisor Generation '2'."


def test_error_of_provider_is_shown_with_its_code():
    error = json.dumps({"error": {"code": "BadRequest", "message": GENERATION, "details": None}}, indent=2)
    values = read_error_values([("Provider Error Json", error), ("Provider Error Json Truncated", "False")])
    assert values.text == f"{GENERATION.rstrip('.')} [BadRequest]"
    assert values.provider_code == "BadRequest"


def test_other_values_are_shown_with_their_names():
    values = read_error_values([("PropertyName", "vmSize"), ("Reason", "Not\nsupported."), (None, "x"), ("y", None)])
    assert values.text == "PropertyName: vmSize; Reason: Not supported"
    assert values.provider_code == ""


@pytest.mark.parametrize("value", ["{", "[1]", "null", '{"error": "text"}', '{"error": {"code": "x"}}', "[" * 100_000])
def test_json_of_another_shape_is_shown_as_text(value):
    values = read_error_values([("Provider Error Json", value)])
    assert values.text.startswith("Provider Error Json: ")
    assert len(values.text) <= MAX_VALUE_LENGTH
    assert values.provider_code == ""


def test_secrets_of_values_are_hidden():
    url = "https://a.blob.core.windows.net/c?sv=1&sig=abcdefghijklmnop"
    error = json.dumps({"error": {"code": "BadRequest", "message": f"No: {url}"}})
    text = read_error_values([("Reason", f"Refused: {url}"), ("Provider Error Json", error)]).text
    assert "abcdefgh" not in text
    assert text.count("[hidden]") == 2
