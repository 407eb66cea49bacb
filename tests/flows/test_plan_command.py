"""`topn plan`, which says what a run would do."""

from __future__ import annotations

from pathlib import Path


def test_new_unchanged_and_refused_inputs_are_named_and_nothing_is_created(topn, nothing_left):
    Path("old.txt").write_text("one two two")
    assert topn("run", "old.txt").returncode == 0
    Path("new.txt").write_text("three")
    Path("same.txt").write_text("three")

    done = topn("plan", "*.txt", "missing.txt")

    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "2 new, 1 unchanged, 1 refused.",
        "A run would add 1 Batch task, on up to 1 node (standard_d2s_v3) with 2 slots each.",
        "new: new.txt (5 bytes)",
        "new: same.txt (5 bytes)",
        "unchanged: old.txt (11 bytes)",
    ]
    assert "missing.txt does not exist: name a file, or a pattern that matches one." in done.stderr
    nothing_left()


def test_a_plan_needs_no_azure_and_a_night_with_nothing_new_would_create_nothing(topn):
    Path("old.txt").write_text("one two two")
    assert topn("run", "old.txt").returncode == 0
    topn.environment = {"TOPN_STATE": topn.environment["TOPN_STATE"]}

    done = topn("plan", "old.txt")

    assert (done.returncode, done.stdout.splitlines()[:2]) == (
        0,
        ["0 new, 1 unchanged, 0 refused.", "A run would create nothing."],
    )


def test_files_that_share_batch_tasks_are_planned_so(topn):
    for number in range(30):
        Path(f"{number:02}.txt").write_text(f"w{number}")
    assert "would add 3 Batch tasks, on up to 2 nodes" in topn("plan", "*.txt", "--files-per-task", "10").stdout
    assert "would add 30 Batch tasks" in topn("plan", "*.txt", "--files-per-task", "auto").stdout


def test_a_long_list_is_cut(topn):
    for number in range(30):
        Path(f"{number:02}.txt").write_text(f"w{number}")
    done = topn("plan", "*.txt")
    assert len(done.stdout.splitlines()) == 23
    assert done.stdout.splitlines()[-1] == "new: and 10 more"


def test_a_signature_in_a_setting_that_is_refused_is_not_told(topn):
    Path("a.txt").write_text("one")
    done = topn("plan", "a.txt", TOPN_RESULTS="https://a.blob.core.windows.net?sv=1&sig=c2VjcmV0c2VjcmV0%3D")
    assert done.returncode == 2
    assert "sig=[hidden]', which does not name a blob container." in done.stderr
    assert "c2VjcmV0" not in done.stderr
