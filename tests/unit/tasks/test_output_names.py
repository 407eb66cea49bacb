"""Names of files, of their outputs, and how names are printed."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import UsageError
from tasks.model.inputs import FoundFile
from tasks.model.output_names import MAX_NAME_BYTES, check_clashes, output_name
from tasks.text import printable

SUFFIXES = (".txt", ".json")


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("a.txt", "a_OUTPUT"),
        ("x/a.txt", "x/a_OUTPUT"),
        ("notes.md", "notes.md_OUTPUT"),
        ("a.TXT", "a.TXT_OUTPUT"),
        ("a.txt.gz", "a.txt.gz_OUTPUT"),
        ("a.txt.txt", "a.txt_OUTPUT"),
        ("noext", "noext_OUTPUT"),
        (".txt", ".txt_OUTPUT"),
        ("x.txt/.hidden", "x.txt/.hidden_OUTPUT"),
        # `con` and `NUL` are devices on Windows, but `con_OUTPUT` and `NUL_OUTPUT` are not.
        ("con.txt", "con_OUTPUT"),
        ("100%.txt", "100%_OUTPUT"),
        ("a%20b%41/c.txt", "a%20b%41/c_OUTPUT"),
        # Names of blobs.
        ("../a.txt", "%2E%2E/a_OUTPUT"),
        ("a/./b.txt", "a/%2E/b_OUTPUT"),
        ("a//b.txt", "a/%2F/b_OUTPUT"),
        ("/a.txt", "%2F/a_OUTPUT"),
        ("a/", "a/_OUTPUT"),
        ("v1./..", "v1%2E/.._OUTPUT"),
        ("a\0b\\c\r.txt", "a%00b%5Cc%0D_OUTPUT"),
        ("a\0%.txt", "a%00%25_OUTPUT"),
        ("%2E%2E/a%00.txt", "%252E%252E/a%2500_OUTPUT"),
    ],
)
def test_output_drops_only_final_txt(name, output):
    assert output_name(name) == output


def check(*names, documents=()):
    check_clashes([FoundFile(path=f"/data/{name}", name=name) for name in names], SUFFIXES, documents)


@pytest.mark.parametrize(
    "names",
    [
        ["x", "x.txt"],
        ["README.txt", "readme.txt"],
        ["Docs/a.txt", "docs/a.txt"],
        ["straße.txt", "STRASSE.txt"],
        ["caf\u00e9.txt", "cafe\u0301.txt"],
        # A folder cannot have the name of a file.
        ["x.txt", "x_OUTPUT.txt/y.txt"],
        ["X_output.JSON/deep/y.txt", "x.txt"],
    ],
)
def test_clashing_outputs_are_refused(names):
    for order in (names, names[::-1]):
        with pytest.raises(UsageError, match="outputs at the same path") as refusal:
            check(*order)
        assert all(f"/data/{printable(name)}" in str(refusal.value) for name in names)
        assert "`--root`" in str(refusal.value)
        assert "`--exclude`" in str(refusal.value)


def test_equal_names_are_refused():
    files = [FoundFile(path=f"/{folder}/x.txt", name="x.txt") for folder in "ab"]
    with pytest.raises(UsageError, match=r"^/a/x\.txt and /b/x\.txt have the same name, x\.txt"):
        check_clashes(files, SUFFIXES, ())


def test_outputs_do_not_clash_with_documents():
    with pytest.raises(UsageError, match=r"/data/Results\.csv/x\.txt has outputs at `results\.csv`"):
        check("Results.csv/x.txt", documents=["manifest.json", "results.csv"])


folder_names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=4).filter(
    lambda text: text not in {".", ".."}
)


def normalized(name):
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


@given(st.lists(st.lists(folder_names, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8, unique=True))
def test_accepted_names_have_distinct_outputs(names):
    try:
        check(*names)
    except UsageError:
        return
    outputs = [output_name(name) for name in names]
    assert len({normalized(output) for output in outputs}) == len(names)


blob_names = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8"), max_size=6),
        st.text(".%/\\\0~02EF5c", max_size=8),
        st.sampled_from(["", ".", "..", "...", "%2E", "%252E", "%2F", "%00", "x" * 300, "ü" * 130]),
    ),
    min_size=1,
    max_size=4,
).map("/".join)


@given(blob_names)
def test_each_name_has_a_usable_output(name):
    path = f"{output_name(name)}.json"
    assert str(PurePosixPath(path)) == path
    for segment in path.split("/"):
        assert segment not in {"", ".", ".."}
        assert 0 < len(segment.encode()) <= MAX_NAME_BYTES
        assert not segment.endswith(".")
        assert not re.search(r"[\x00-\x1f\x7f\\]", segment)


@given(blob_names, blob_names)
def test_different_names_have_different_outputs(first, second):
    def without_suffix(name):
        folder, slash, base = name.rpartition("/")
        return folder + slash + (base.removesuffix(".txt") or base)

    assert (output_name(first) == output_name(second)) == (without_suffix(first) == without_suffix(second))


@given(blob_names)
def test_encoded_folder_is_not_confused(folder):
    """A folder whose name is the encoded name of another one has other outputs."""
    encoded = output_name(f"{folder}/a").rpartition("/")[0]
    assert (output_name(f"{encoded}/a") == output_name(f"{folder}/a")) == (encoded == folder)


def test_long_names_with_equal_prefix_differ():
    assert output_name("x" * 250 + "1.txt") != output_name("x" * 250 + "2.txt")


@given(st.text())
def test_printable_name_is_one_encodable_line(name):
    text = printable(name)
    assert printable(text) == text
    assert len(text.splitlines()) <= 1
    text.encode("utf-8")


def test_surrogates_and_line_breaks_are_escaped():
    assert printable("a\nb\udcff\x1b\u202e") == "a\\nb\\udcff\\x1b\\u202e"
