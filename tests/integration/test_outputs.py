"""What a user is told of outputs that cannot be written."""

from __future__ import annotations

from pathlib import Path


def test_unwritable_output_is_named_and_costs_no_result(topn, tmp_path, nothing_left):
    for name in ("sub/a.txt", "b.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    (tmp_path / "outside").mkdir()
    Path("results").mkdir()
    Path("results/sub").symlink_to(tmp_path / "outside")

    done = topn("run", "sub/a.txt", "b.txt")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "The run failed: 1 outputs could not be written: sub/a_OUTPUT (a link leads out of the output folder). "
        "The results are kept: run again with another output folder."
    )
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "outside").iterdir()) == []
    assert Path("results/b_OUTPUT.txt").exists()
    nothing_left()

    again = topn.json("sub/a.txt", "b.txt", "--output", "elsewhere")
    assert (again["unchanged"], again["counted"]) == (2, 0)
    assert Path("elsewhere/sub/a_OUTPUT.txt").exists()
