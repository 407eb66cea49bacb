"""Names of files, of their outputs, and how names are printed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.output_names import MAX_NAME_BYTES, names_below_common_folder, output_names
from tasks.text import printable


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/b/x.txt"], ["x.txt"]),
        (["/w/reports/a.txt", "/w/notes/b.txt"], ["reports/a.txt", "notes/b.txt"]),
        (["/w/a.txt", "/w/sub/a.txt"], ["a.txt", "sub/a.txt"]),
        (["/a.txt", "/b/c.txt"], ["a.txt", "b/c.txt"]),
    ],
)
def test_files_are_named_below_common_folder(paths, names):
    assert names_below_common_folder(paths) == names


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["a.txt"], ["a_OUTPUT"]),
        (["a.txt", "b.txt"], ["a_OUTPUT", "b_OUTPUT"]),
        (["a.txt", "a.md"], ["a.txt_OUTPUT", "a.md_OUTPUT"]),
        (["x/a.txt", "y/a.txt"], ["x/a_OUTPUT", "y/a_OUTPUT"]),
        (["noext"], ["noext_OUTPUT"]),
        ([".hidden"], [".hidden_OUTPUT"]),
        # The name of the first file is the stem of the third, so the third needs its whole name, too.
        (["a.txt", "a.md", "a.txt.md"], ["a.txt_OUTPUT", "a.md_OUTPUT", "a.txt.md_OUTPUT"]),
        # `con` and `NUL` are devices on Windows, but `con_OUTPUT` and `NUL_OUTPUT` are not.
        (["con.txt", "NUL"], ["con_OUTPUT", "NUL_OUTPUT"]),
    ],
)
def test_clashing_stems_use_whole_name(names, outputs):
    assert output_names(names) == outputs


def normalized(name):
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


@pytest.mark.parametrize(
    "names",
    [
        ["README.txt", "readme.txt"],
        ["a.TXT", "A.txt", "a.md"],
        ["Docs/a.txt", "docs/a.txt"],
        ["straße.txt", "STRASSE.txt"],
        ["caf\u00e9.txt", "cafe\u0301.txt"],
    ],
)
def test_equivalent_names_get_distinct_outputs(names):
    outputs = output_names(names)
    assert len({normalized(output) for output in outputs}) == len(names)
    # The order of the files does not matter.
    assert outputs == output_names(names[::-1])[::-1]


def test_crafted_name_cannot_collide_with_output():
    long = "x" * 250
    [output] = output_names([f"{long}.txt"])
    crafted = output.removesuffix("_OUTPUT")
    assert len(set(output_names([f"{long}.txt", f"{crafted}.txt"]))) == 2
    [_, marked] = output_names(["a.txt", "A.txt"])
    crafted = marked.removesuffix("_OUTPUT")
    assert len({normalized(name) for name in output_names(["a.txt", "A.txt", crafted, f"{crafted}.txt"])}) == 4


folder_names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=4).filter(
    lambda text: text not in {".", ".."}
)


@given(st.lists(st.lists(folder_names, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8, unique=True))
def test_outputs_are_unique_and_keep_folders(names):
    outputs = output_names(names)
    assert len({normalized(output) for output in outputs}) == len(names)
    for name, output in zip(names, outputs, strict=True):
        assert name.rpartition("/")[0] == output.rpartition("/")[0]


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=200, max_size=255))
def test_output_name_fits_file_system(name):
    [output] = output_names([name])
    assert len(f"{output}.json".encode()) <= MAX_NAME_BYTES


def test_long_names_with_equal_prefix_differ():
    outputs = output_names(["x" * 250 + "1.txt", "x" * 250 + "2.txt"])
    assert outputs[0] != outputs[1]


@given(st.text())
def test_printable_name_is_one_encodable_line(name):
    text = printable(name)
    assert printable(text) == text
    assert len(text.splitlines()) <= 1
    text.encode("utf-8")


def test_surrogates_and_line_breaks_are_escaped():
    assert printable("a\nb\udcff\x1b\u202e") == "a\\nb\\udcff\\x1b\\u202e"
