"""Compressed files and a real process: bombs, memory, and the program zstd."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import task_script

TEXT = b"the cat, the dog\n"

# Enough for Python and zstd, but not for the content of a bomb.
MEMORY_BYTES = 256 * 2**20


def zstd(data):
    return subprocess.run(["zstd", "-cq"], input=data, capture_output=True, check=True).stdout


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_script(*arguments, **variables):
    environ = {**os.environ, "PYTHONPATH": str(Path(task_script.__file__).parent.parent), **variables}
    return subprocess.run(
        [sys.executable, "-m", "task_script", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
    )


@pytest.mark.parametrize("suffix", COMPRESS)
def test_bomb_fails_alone_within_memory(folder, suffix):
    # Members of 32 MB each, 4 GB in all.
    (folder / f"spaces{suffix}").write_bytes(COMPRESS[suffix](b" " * 2**25) * 128)
    (folder / f"word{suffix}").write_bytes(COMPRESS[suffix](b"a" * 2**25) * 128)
    (folder / "good.txt").write_bytes(TEXT)

    script = run_script(f"spaces{suffix}", f"word{suffix}", "good.txt", "--max-expanded-mb", "100")

    assert script.stderr.splitlines() == [
        f"input error: spaces{suffix} expands to more than 100 MB; set a higher --max-expanded-mb",
        f"input error: word{suffix} has a word of more than 16 MB",
    ]
    assert script.returncode == 1
    assert sorted(path.name for path in folder.glob("*OUTPUT*")) == ["good_OUTPUT.json", "good_OUTPUT.txt"]


@pytest.mark.parametrize("frames", [1, 3])
def test_zstd_file_counts_like_text(folder, frames):
    data = zstd(TEXT) * frames
    (folder / "a.zst").write_bytes(data)

    assert run_script("a.zst").stderr == ""

    result = json.loads((folder / "a_OUTPUT.json").read_bytes())
    assert (result["sha256"], result["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (result["words"], result["top"][0]) == (4 * frames, ["the", 2 * frames])


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"the", lambda _: b"", lambda _: TEXT])
def test_damaged_zstd_file_fails_alone(folder, damage):
    (folder / "a.zst").write_bytes(damage(zstd(TEXT)))
    (folder / "good.zst").write_bytes(zstd(TEXT))

    script = run_script("a.zst", "good.zst")

    assert script.returncode == 1
    [error] = script.stderr.splitlines()
    assert error.startswith("input error: a.zst cannot be expanded: ")
    assert (folder / "good_OUTPUT.json").exists()


def test_zstd_file_cannot_demand_memory(folder):
    content = os.urandom(1000)
    data = subprocess.run(["zstd", "-cq", "--long=31"], input=content, capture_output=True, check=True).stdout
    (folder / "a.zst").write_bytes(data)

    assert "too much memory" in run_script("a.zst").stderr


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 needs no program")
def test_missing_zstd_says_what_to_install(folder):
    (folder / "a.zst").write_bytes(zstd(TEXT))
    (folder / "good.gz").write_bytes(gzip.compress(TEXT))

    script = run_script("a.zst", "good.gz", PATH=str(folder))

    assert script.returncode == 1
    assert script.stderr == (
        "input error: a.zst needs the program zstd or Python 3.14: "
        "install zstd on the node, for example with `start_commands` of the pool setup\n"
    )
    assert (folder / "good_OUTPUT.json").exists()
