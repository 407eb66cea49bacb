"""What the operations on files of nodes and of Batch tasks have in common."""

from __future__ import annotations

import shutil
from pathlib import Path

from starlette.responses import Response

from localbatch import errors, odata
from localbatch.calls import Call, done, listing
from localbatch.files import file_response, find_file, list_files


def answer_with_file(call: Call, root: Path, url: str) -> Response:
    """Answer a GET or a HEAD with a file below a root, if the conditions of the headers hold."""
    path = find_file(root, call.parameters["file_path"])
    call.check_file(path)
    url = f"{url}/{path.relative_to(root).as_posix()}"
    return file_response(path, url, call.headers, with_body=call.method == "GET")


def delete_file(call: Call, root: Path) -> Response:
    """Delete a file below a root, or a directory with all that is in it if the request is recursive."""
    path = find_file(root, call.parameters["file_path"])
    if not path.is_dir() or path.is_symlink():
        path.unlink()
    elif call.option("recursive"):
        shutil.rmtree(path)
    else:
        raise errors.invalid_query_parameter_value(
            QueryParameterName="recursive", QueryParameterValue="false", Reason="The path is a directory"
        )
    return done(200)


def list_files_below(call: Call, root: Path, url: str) -> Response:
    """Answer with a page of the files below a root."""
    return listing(call, "files", list_files(root, url, recursive=call.option("recursive")), odata.FILES, lambda f: f)
