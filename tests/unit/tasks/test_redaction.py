"""Logs and messages contain no secrets."""

from __future__ import annotations

import io
import logging

import pytest

from tasks import redaction
from tasks.redaction import HIDDEN, describe_error, protect, redact

SIGNATURE = "Zm9vYmFy%2Bc2VjcmV0c2VjcmV0%3D"


@pytest.fixture(autouse=True)
def factory(monkeypatch):
    """Clear the protected keys, and restore the log record factory after the test."""
    monkeypatch.setattr(redaction, "_keys", set())
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def log():
    """Return a function that reads everything logged at any level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://a.example/c/b?sv=2026&sig={SIGNATURE}&se=2026 failed",
        f"GET /c/b?sig={SIGNATURE}",
        f"next=https%3A%2F%2Fa.example%2Fc%3Fsv%3D1%26sig%3D{SIGNATURE}",
        f'{{"url": "https://a.example/c?sv=1\\u0026sig\\u003d{SIGNATURE}"}}',
        f"{{'sv': '1', 'sig': '{SIGNATURE}'}}",
        f'{{"sig":"{SIGNATURE}"}}',
        f"Authorization: SharedKey account:{SIGNATURE}",
        f"authorization: Bearer {SIGNATURE}",
        f"authorization: Basic {SIGNATURE}",
        f"AccountName=a;AccountKey={SIGNATURE};EndpointSuffix=core",
    ],
)
def test_signature_is_redacted_in_every_form(text):
    safe = redact(text)
    assert SIGNATURE not in safe
    assert "c2VjcmV0" not in safe
    assert HIDDEN in safe


@pytest.mark.parametrize("text", ["", "design=yes", "the sig of a file", "sig=", "SharedKey is a scheme", "a b c"])
def test_harmless_text_is_unchanged(text):
    assert redact(text) == text


def test_url_password_is_redacted():
    text = "no answer from https://me:pa$s&w0rd@prefect.example/api, nor from https://prefect.example:443/a@b"
    assert redact(text) == text.replace("pa$s&w0rd", HIDDEN)


def test_protected_key_is_redacted():
    protect("k+/e==yyy", "key", "")
    assert redact("key k+/e==yyy, k%2B%2Fe%3D%3Dyyy.") == f"key {HIDDEN}, {HIDDEN}."


def test_every_logger_redacts_signatures_and_keys(log):
    protect("account+key==")
    logging.getLogger("some.library").debug("%s asks for %s", "account+key==", f"/c/b?sig={SIGNATURE}")
    assert log() == f"{HIDDEN} asks for /c/b?sig={HIDDEN}\n"


def test_logged_traceback_has_no_signature(log):
    protect()

    def fail():
        raise ValueError(f"could not read sig={SIGNATURE}") from OSError(f"no answer from /c?sig={SIGNATURE}")

    try:
        fail()
    except ValueError:
        logging.getLogger("some.library").exception("failed")
    assert "ValueError" in log()
    assert log().count(f"sig={HIDDEN}") == 2
    assert SIGNATURE not in log()


def test_log_records_contain_no_control_characters(log):
    protect()
    logging.getLogger("some.library").warning("a\x1b[2J%s\nnext\tline", "\u202eb")
    error = ValueError("c\x9b2J")
    logging.getLogger("some.library").error("failed", exc_info=(ValueError, error, None))
    assert log().startswith("a\\x1b[2J\\u202eb\nnext\tline\n")
    assert "ValueError: c\\x9b2J" in log()


def test_malformed_log_call_is_left_to_logging(log, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    protect()
    logging.getLogger("some.library").warning("%d", "x")
    assert log() == ""


def test_description_of_error_has_one_line_without_secrets():
    error = ValueError("https://a.example/b?sv=1&sig=abcdefgh12345678\nnext.")
    assert describe_error(error) == r"ValueError: https://a.example/b?sv=1&sig=[hidden]\nnext"
