"""The task script, packed into one file that `python3` runs, with its counting compiled where a compiler is installed."""

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
from tasks.files import write_whole
from tasks.progress import notify

# Zip files cannot hold an earlier instant; a fixed one makes equal sources equal packages.
FIXED_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

MAIN = "from task_script.top_words import main\n\nraise SystemExit(main())\n"

# The processors that Azure has Linux nodes with, as `uname -m` names them.
MACHINES = ("x86_64", "aarch64")

# No C library: the object takes its few functions from the one that Python has loaded, whichever that is.
COMPILER = ("cc", "-O2", "-shared", "-fPIC", "-nostdlib", "-s")

# It takes half a second.
MAX_COMPILING_SECONDS = 120


class TaskScriptPackage(Mapping[str, bytes]):
    """The file that is shipped, by its name. It is packed, and compiled, when its content is asked for.

    Attributes:
        sources_sha256: Hash of what it is made of. What a compiler made of that counts alike, and is not everywhere.
    """

    def __init__(self) -> None:
        self._sources = _sources()
        self.sources_sha256 = hashlib.sha256(_pack(self._sources)).hexdigest()
        # The name holds a hash, so that two versions never meet under one.
        self.name = f"task_script-{self.sources_sha256[:16]}.pyz"

    def __getitem__(self, name: str) -> bytes:
        """Give the package."""
        if name != self.name:
            raise KeyError(name)
        return _pack(self._sources | _compiled(self._sources["task_script/counts.c"]))

    def __iter__(self) -> Iterator[str]:
        """Give the package's name."""
        return iter([self.name])

    def __len__(self) -> int:
        """Count the package."""
        return 1


def _sources() -> dict[str, bytes]:
    spec = importlib.util.find_spec("task_script")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The package task_script is not installed.")
    folder = Path(next(iter(spec.submodule_search_locations)))
    paths = sorted([*folder.glob("*.py"), folder / "counts.c"])
    return {f"task_script/{path.name}": path.read_bytes() for path in paths} | {"__main__.py": MAIN.encode()}


def _pack(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    # Stored, not compressed: the bytes, and so every content key, must not depend on the zlib of this machine.
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, FIXED_ZIP_TIME), content)
    return packed.getvalue()


def _compiled(source: bytes) -> dict[str, bytes]:
    """Compile the counting for each machine, or take what was compiled before; nothing where there is no compiler."""
    if importlib.util.find_spec("ziglang") is None:
        return {}
    made_of = hashlib.sha256(b"\n".join([version("ziglang").encode(), *map(str.encode, COMPILER), source]))
    folder = state_folder() / "compiled" / made_of.hexdigest()[:16]
    found = {}
    try:
        for machine in MACHINES:
            name = f"counts-{machine}.so"
            path = folder / name
            if not path.exists():
                write_whole(path, _compile(source, machine))
            found[f"task_script/{name}"] = path.read_bytes()
    except (OSError, subprocess.SubprocessError) as error:
        notify(f"The word counter is not compiled, and nodes count more slowly: {error}")
        return {}
    return found


def _compile(source: bytes, machine: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="topn-compile-") as folder:
        (Path(folder) / "counts.c").write_bytes(source)
        command = [sys.executable, "-m", "ziglang", *COMPILER, "-target", f"{machine}-linux-gnu", "-o", "counts.so"]
        subprocess.run(
            [*command, "counts.c"],
            cwd=folder,
            env=os.environ | {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder},
            check=True,
            capture_output=True,
            timeout=MAX_COMPILING_SECONDS,
        )
        return (Path(folder) / "counts.so").read_bytes()
