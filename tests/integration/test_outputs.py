"""The paths of outputs, and the report of outputs that cannot be written."""

from __future__ import annotations

from pathlib import Path


def test_files_with_equal_names_stay_separate(topn, tmp_path, assert_nothing_left):
    """Field report 33: no output overwrites another, and an unwritable output loses no result."""
    for name, text in (("x/a.txt", "The the STRASSE straße"), ("y/a.txt", "two")):
        Path(name).parent.mkdir()
        Path(name).write_text(text)
    (tmp_path / "outside").mkdir()
    Path("results").mkdir()
    Path("results/x").symlink_to(tmp_path / "outside")
    given = ("x/a.txt", "y/a.txt", "x/../x/a.txt", "--root", ".", "--ignore-case")

    done = topn("run", *given)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "The run failed: x/a_OUTPUT (a link points outside the output folder) could not be written. "
        "The results are stored. Run again to write them, perhaps with another output folder."
    )
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "outside").iterdir()) == []
    assert Path("results/y/a_OUTPUT.txt").exists()
    assert_nothing_left()

    again = topn.json(*given, "--output", "elsewhere")

    assert (again["unchanged"], again["counted"]) == (2, 0)
    assert [(file["file"], file["top"]) for file in again["files"]] == [
        ("x/a.txt", [["strasse", 2], ["the", 2]]),
        ("y/a.txt", [["two", 1]]),
    ]
    assert Path("elsewhere/x/a_OUTPUT.json").exists()
    assert Path("elsewhere/y/a_OUTPUT.json").exists()
