"""Compressed inputs and other encodings, on nodes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
from pathlib import Path

TEXT = "b кот b\n"


def compressed_files(encoding):
    """Write a text in each format, and return the names."""
    data = TEXT.encode(encoding)
    contents = {
        "plain": data,
        "a.gz": gzip.compress(data),
        "a.bz2": bz2.compress(data),
        "a.xz": lzma.compress(data),
        "a.zst": subprocess.run(["zstd", "-cq"], input=data, capture_output=True, check=True).stdout,
    }
    for name, content in contents.items():
        Path(name).write_bytes(content)
    return list(contents)


def test_pack_has_files_of_all_formats(topn, assert_nothing_left):
    names = compressed_files("utf-8")
    # The same bytes under another name are another content.
    Path("a.bin").write_bytes(Path("a.gz").read_bytes())
    Path("cut.gz").write_bytes(Path("a.gz").read_bytes()[:-1])
    Path("large.gz").write_bytes(gzip.compress(b" " * 2**21))

    given = (*names, "a.bin", "cut.gz", "large.gz", "--files-per-task", "8", "--max-expanded-mb", "1")
    done = topn.json(*given, status=1)

    files = {file["file"]: file for file in done["files"]}
    assert [files[name]["top"] for name in names] == [[["b", 2], ["кот", 1]]] * len(names)
    assert [files[name]["bytes"] for name in names] == [Path(name).stat().st_size for name in names]
    errors = {name: files[name]["error"]["message"] for name in files if files[name].get("error")}
    assert errors == {
        "a.bin": "a.bin is not UTF-8 text (byte 0x8b at offset 1)",
        "cut.gz": "cut.gz cannot be expanded: it is cut off",
        "large.gz": "large.gz expands to more than 1 MB; set a higher --max-expanded-mb",
    }
    assert_nothing_left()


def test_single_files_have_other_encoding(topn):
    names = compressed_files("utf-16")
    Path("bad.gz").write_bytes(gzip.compress(b"odd"))

    done = topn.json(*names, "bad.gz", "--encoding", "UTF16", status=1)

    *files, bad = done["files"]
    assert [file["top"] for file in files] == [[["b", 2], ["кот", 1]]] * len(names)
    assert bad["error"]["message"] == "bad.gz is not utf-16 text (byte 0x64 at offset 2)"
    assert (topn.json(*names, "--encoding", "utf-16")["unchanged"], topn("plan", *names).stdout[:5]) == (5, "5 new")
