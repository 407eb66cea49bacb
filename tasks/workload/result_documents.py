"""Stored results as JSON documents with checksums. Large outputs are files of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from dataclasses import asdict, replace
from typing import Any

from tasks.model.outputs import Output, Outputs, Partial, Scratch
from tasks.model.verdict import Provenance, StoredResult
from tasks.workload.result_files import ResultFiles, is_missing_file

# Larger outputs are files of their own beside the document.
MAX_INLINE_BYTES = 64 * 1024

# More than a document with 100 outputs.
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024

Document = dict[str, Any]


class DamagedError(ValueError):
    """A document, or an output that it refers to, is damaged."""

    def __init__(self) -> None:
        super().__init__("an entry is damaged")


def write_result(files: ResultFiles, content_key: str, result: StoredResult) -> tuple[Document, StoredResult]:
    """Write the large outputs of a result, and return its document, and the result with the outputs that were copied."""
    outputs: dict[str, str | dict[str, str]] = {}
    copies: dict[str, Output] = {}
    for name, output in result.outputs.parts.items():
        # No run replaces the copy of another one, which that may still need.
        number = secrets.token_hex(8)
        if (copy := files.copy(f"{content_key}.{name}.{number}", output)) is not None:
            copies[name] = copy
            outputs[name] = {"copy": number, "etag": copy.etag, "bytes": str(copy.size_bytes)}
            continue
        if output.size_bytes > MAX_INLINE_BYTES:
            files.write(f"{content_key}.{name}", output.blocks())
            outputs[name] = {"sha256": _hash(output)}
            continue
        content = output.read()
        try:
            # People can read text.
            outputs[name] = content.decode()
        except UnicodeDecodeError:
            outputs[name] = {"base64": base64.b64encode(content).decode()}
    document = {
        "content_key": content_key,
        "outputs": outputs,
        "provenance": asdict(result.provenance),
        "input_sha256": result.sha256,
        **({"partial": asdict(result.partial)} if result.partial else {}),
    }
    return document, replace(result, outputs=Outputs({**result.outputs.parts, **copies})) if copies else result


def read_result(files: ResultFiles, document: Document, scratch: Scratch) -> StoredResult:
    """Return the result of a document, with its large outputs.

    Raises:
        DamagedError: The document is not complete, or an output is missing or has changed.
    """
    try:
        key = document["content_key"]
        outputs = {name: _load(files, f"{key}.{name}", stored, scratch) for name, stored in document["outputs"].items()}
        return StoredResult(
            outputs=Outputs(outputs),
            provenance=Provenance(**document["provenance"]),
            # Older documents have no hash.
            sha256=document.get("input_sha256", ""),
            partial=_partial(**document["partial"]) if "partial" in document else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedError from error
    except Exception as error:
        if is_missing_file(error):
            raise DamagedError from error
        raise


def read_content(files: ResultFiles, name: str, max_bytes: int) -> bytes | None:
    """Return the content of a file, or None if it does not exist.

    Raises:
        DamagedError: It is larger than any file of the store.
    """
    content = bytearray()
    try:
        for block in files.read(name):
            content += block
            if len(content) > max_bytes:
                break
    except Exception as error:
        if is_missing_file(error):
            return None
        raise
    if len(content) > max_bytes:
        raise DamagedError
    return bytes(content)


def to_bytes(document: Document) -> bytes:
    """Return a document as one line, with a checksum."""
    return json.dumps(document | {"sha256": _checksum(document)}).encode()


def parse_document(content: bytes) -> Document:
    """Parse a document.

    Raises:
        DamagedError: It is not a document, or its checksum does not match.
    """
    try:
        document: Document = json.loads(content)
        if document.pop("sha256") == _checksum(document):
            return document
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError from error
    raise DamagedError


def _load(files: ResultFiles, name: str, stored: str | dict[str, str], scratch: Scratch) -> Output:
    """Load an output from its document, or from the file that its document refers to."""
    if isinstance(stored, str):
        return scratch.add([stored.encode()])
    if "base64" in stored:
        return scratch.add([base64.b64decode(stored["base64"], validate=True)])
    if "copy" in stored:
        # Nobody has read its content, so there is no hash.
        copy = files.open_copy(f"{name}.{stored['copy']}", stored["etag"], scratch)
        if copy.size_bytes != int(stored["bytes"]):
            raise DamagedError
        return copy
    output = scratch.add(files.read(name))
    if _hash(output) != stored["sha256"]:
        raise DamagedError
    return output


def _partial(blob: str, member: str) -> Partial:
    # The name of the member becomes part of a script.
    if not isinstance(blob, str) or not re.fullmatch("[0-9a-f]*", member):
        raise DamagedError
    return Partial(blob=blob, member=member)


def _checksum(document: Document) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _hash(output: Output) -> str:
    digest = hashlib.sha256()
    for block in output.blocks():
        digest.update(block)
    return digest.hexdigest()
