"""Add the byte code of this interpreter to the packed program. Compiling its modules takes longer than a small file."""

from __future__ import annotations

import io
import marshal
import os
import zipfile
from contextlib import suppress
from importlib.util import MAGIC_NUMBER

from task_script.files import AtomicFile, FileFailedError

# The header of byte code that is not compared with its source: the version, flags, and no hash.
# Source: https://peps.python.org/pep-0552/
HEADER = MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)


def add_byte_code(package: str) -> None:
    """Add the byte code of all modules to a package that is a zip file. A package that cannot be written stays the same."""
    with suppress(OSError, FileFailedError), zipfile.ZipFile(package) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".pyc")}
        mode = os.stat(package).st_mode
        # Another version of Python does not use this byte code, but compiles the sources.
        codes = {
            f"{name}c": HEADER + marshal.dumps(compile(content, f"{package}/{name}", "exec"))
            for name, content in members.items()
            if name.endswith(".py")
        }
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as target:
            for name, content in {**members, **codes}.items():
                target.writestr(zipfile.ZipInfo(name), content)
        with AtomicFile(package) as file:
            file.write(packed.getvalue())
        os.chmod(package, mode)
