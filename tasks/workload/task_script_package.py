"""Pack the task script into one file that `python3` runs.

If a compiler is installed, the file also contains the counting in C, compiled for each kind of node.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from tasks.azure.settings import state_folder
from tasks.files import ensure_private_folder, write_atomically
from tasks.progress import notify

# With a fixed time, equal sources produce equal packages. Zip files cannot store an earlier time.
FIXED_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

MAIN = "from task_script.top_words import main\n\nraise SystemExit(main())\n"

NATIVE_FOLDER = "task_script/native"

# The machine types of Linux nodes on Azure, as printed by `uname -m`.
MACHINES = ("x86_64", "aarch64")

# Without a C library, so that the compiled library needs no version of one. It uses the one that Python has loaded.
COMPILER = ("cc", "-O2", "-shared", "-fPIC", "-nostdlib", "-s")

# Compiling takes half a second.
COMPILE_TIMEOUT_SECONDS = 120


class TaskScriptPackage(Mapping[str, bytes]):
    """A mapping of the name of the packed file to its content, which is packed and compiled on each access.

    Attributes:
        sources_sha256: Hash of the sources. It does not include the compiled libraries, because they return the same
            results, and not every machine has a compiler.
    """

    def __init__(self) -> None:
        self._sources = _sources()
        self.sources_sha256 = hashlib.sha256(_pack(self._sources)).hexdigest()
        # The hash in the name keeps two versions apart.
        self.name = f"task_script-{self.sources_sha256[:16]}.pyz"

    def __getitem__(self, name: str) -> bytes:
        """Return the content of the packed file."""
        if name != self.name:
            raise KeyError(name)
        return _pack(self._sources | _compiled(self._sources[f"{NATIVE_FOLDER}/counts.c"]))

    def __iter__(self) -> Iterator[str]:
        """Yield the name of the packed file."""
        return iter([self.name])

    def __len__(self) -> int:
        """Return 1: there is one file."""
        return 1


def _sources() -> dict[str, bytes]:
    spec = importlib.util.find_spec("task_script")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The package `task_script` is not installed.")
    folder = Path(next(iter(spec.submodule_search_locations)))
    paths = [*folder.rglob("*.py"), *folder.rglob("*.c")]
    sources = {f"task_script/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}
    return dict(sorted(sources.items())) | {"__main__.py": MAIN.encode()}


def _pack(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    # Without compression, so that the bytes, and with them all content keys, do not depend on this machine's zlib.
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, FIXED_ZIP_TIME), content)
    return packed.getvalue()


def _compiled(source: bytes) -> dict[str, bytes]:
    """Return the libraries for all machine types, compiled or from the cache. Without a compiler, return none."""
    if importlib.util.find_spec("ziglang") is None:
        return {}
    cache_key = hashlib.sha256(b"\n".join([version("ziglang").encode(), *map(str.encode, COMPILER), source]))
    folder = state_folder() / "compiled" / cache_key.hexdigest()[:16]
    libraries = {}
    try:
        for machine in MACHINES:
            name = f"counts-{machine}.so"
            path = folder / name
            if not path.exists():
                ensure_private_folder(state_folder())
                write_atomically(path, _compile(source, machine))
            libraries[f"{NATIVE_FOLDER}/{name}"] = path.read_bytes()
    except (OSError, subprocess.SubprocessError) as error:
        notify(f"The word counter cannot be compiled, so nodes count more slowly: {error}")
        return {}
    return libraries


def _compile(source: bytes, machine: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="topn-compile-") as folder:
        (Path(folder) / "counts.c").write_bytes(source)
        # -E and -P: import nothing from PYTHONPATH and the current folder.
        command = [
            sys.executable,
            "-E",
            "-P",
            "-m",
            "ziglang",
            *COMPILER,
            "-target",
            f"{machine}-linux-gnu",
            "-o",
            "counts.so",
        ]
        subprocess.run(
            [*command, "counts.c"],
            cwd=folder,
            env=os.environ | {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder},
            check=True,
            capture_output=True,
            timeout=COMPILE_TIMEOUT_SECONDS,
        )
        return (Path(folder) / "counts.so").read_bytes()
