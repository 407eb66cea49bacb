"""Errors before `topn` uses a server: one sentence on stderr, exit code 2, nothing created."""

from __future__ import annotations

from pathlib import Path

import pytest


def refused(topn, *arguments, **variables):
    """Run a command that must fail with a usage error, and return its stderr."""
    done = topn(*arguments, **variables)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "required: INPUT"),
        (["run", "missing.txt"], "missing.txt does not exist"),
        (["run", "folder"], "folder matches no file"),
        (["run", "*.nothing"], "*.nothing matches no file"),
        (["run", "s3://texts/*.txt"], "s3://texts/*.txt is not in Blob Storage"),
        (["run", "az://x/*.txt"], "names the container `x`. Names of containers consist of 3 to 63"),
        (["run", "az://texts/a.txt?sv=1&sig=secret"], "contains more than the address of a blob"),
        (["run", "https://a.blob.core.windows.net/texts/a.txt?sig=secret"], "contains more than the address of a blob"),
        (["run", "http://a.blob.core.windows.net/texts/a.txt"], "is not encrypted. Use https"),
        (["plan", "az://texts/*.txt"], "az://texts/*.txt is in Blob Storage, and no Azure is configured"),
        (["run", "x/a.txt", "y/a.txt"], "have the same name, a.txt. Set `--root` to a folder above both"),
        (["run", "a.txt", "--root", "x"], "a.txt is below no `--root`"),
        (["run", "a.txt", "--exclude", "*"], "`--exclude` leaves out all inputs"),
        (["run", "a.txt", "--table", "https://example.com/t.csv"], "is not in Blob Storage"),
        (["run", "a.txt", "--table", "t.xls"], "needs the suffix .csv, .jsonl, .parquet"),
        (["run", "a.txt", "--output", "ftp://127.0.0.1/x"], "is not in Blob Storage"),
        (["run", "a.txt", "--output", "az://"], "names no container"),
        (["run", "a.txt", "--output", "occupied"], "`occupied/a_OUTPUT.txt` is in the way"),
        (["run", "a.txt", "-n", "0"], "'0' is not an integer of at least 1"),
        (["run", "a.txt", "-n", "three"], "'three' is not an integer of at least 1"),
        (["run", "a.txt", "--output", "a.txt"], "The output folder `a.txt` is a file, or below one"),
        (["run", "a.txt", "--output", "a.txt/below"], "The output folder `a.txt/below` is a file, or below one"),
        (["run", "a.txt", "--output", "/proc/nothing"], "Cannot write to the output folder `/proc/nothing`"),
        (["run", "a.txt", "--no-such-option"], "unrecognized arguments"),
        (["run", "a.txt", "--encoding", "klingon"], "`klingon` is not a text encoding of Python"),
        (["plan", "a.txt", "--encoding", "hex"], "`hex` is not a text encoding of Python"),
        (["run", "a.txt", "--encoding", "rot13"], "`rot13` is not a text encoding of Python"),
        (["plan", "a.txt", "--max-expanded-mb", "0"], "'0' is not an integer of at least 1"),
        (["walk"], "invalid choice: 'walk'"),
        (["sweep", "--older-than", "soon"], "'soon' is not a duration"),
        (["check", "--pool-id", "no pool"], "'no pool' is not a pool id"),
        (["run", ""], "'' is not a text with at least one character"),
        (["run", "a.txt", "--output", ""], "'' is not a text with at least one character"),
        (["check", "--nodes", "10001"], "'10001' is not an integer from 1 to 10,000"),
        (["plan", "a.txt", "--timeout-minutes", "nan"], "'nan' is not a number from 1 to 8,640"),
        (["run", "a.txt", "--max-usd", "inf"], "'inf' is not a number above 0"),
        (["run", "a.txt", "--max-usd", "0.001"], "Set it to at least 0.03, or use fewer nodes"),
        (["plan", "a.txt", "--max-usd", "1", "--vm-size", "m1"], "needs the price of m1, which is unknown"),
        (["run", "a.txt", "--pool-id", "p", "--max-usd", "1"], "cannot limit the cost of pool `p`"),
        (["run", "a.txt", "--pool-id", "p", "--nodes", "5"], "Leave out nodes, or `pool_id`"),
        (["check", "--pool-id", "p", "--vm-size", "m1"], "Leave out vm_size, or `pool_id`"),
    ],
)
def test_bad_usage_prints_one_sentence_and_creates_nothing(topn, arguments, sentence):
    """Field report 25: a run without inputs is an error."""
    Path("a.txt").write_text("text")
    for folder in ("folder", "x", "y", "occupied"):
        Path(folder).mkdir()
    for name in ("x/a.txt", "y/a.txt", "occupied/a_OUTPUT.txt"):
        Path(name).write_text("text")
    before = set(Path().rglob("*"))
    assert sentence in refused(topn, *arguments)
    assert set(Path().rglob("*")) == before
    assert not Path(topn.environment["TOPN_STATE"]).exists()


def test_incomplete_configuration_names_missing_setting(topn):
    Path("a.txt").write_text("text")
    stderr = refused(topn, "run", "a.txt", TOPN_BATCH_ENDPOINT="http://127.0.0.1:1")
    assert "TOPN_STORAGE_ENDPOINT" in stderr


def test_sweep_without_azure_is_rejected(topn):
    assert "No Azure is configured" in refused(topn, "sweep")


def test_rejected_setting_shows_no_signature(topn):
    Path("a.txt").write_text("one")
    url = "https://a.blob.core.windows.net?sv=1&sig=c2VjcmV0c2VjcmV0%3D"
    stderr = refused(topn, "plan", "a.txt", TOPN_RESULTS=url)
    assert "TOPN_RESULTS contains more than an address" in stderr
    assert "c2VjcmV0" not in stderr
