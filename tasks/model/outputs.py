"""The outputs of results: they are kept in temporary files or in Storage, and results refer to them."""

from __future__ import annotations

import io
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

BLOCK_BYTES = 1024 * 1024

# The first bytes of an output, which tables show. They are always in memory or in a temporary file.
START_BYTES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """A partial of the corpus, which is kept in the container of the partials.

    Attributes:
        blob: Name of a blob.
        member: Folder of the partial in that blob, which is an archive; "" if the blob is the partial.
    """

    blob: str
    member: str = ""


class _File:
    """A temporary file without a name. It is deleted when nothing refers to it any more."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            self.handle = os.dup(file.fileno())

    def __del__(self) -> None:
        os.close(self.handle)


class Output(ABC):
    """The content of an output, which several threads may read."""

    __slots__ = ()

    size_bytes: int

    @staticmethod
    def of(content: bytes) -> Output:
        """Write an output to a temporary file of its own."""
        return Scratch().add([content])

    @abstractmethod
    def blocks(self, limit: int | None = None) -> Iterator[bytes]:
        """Yield the content, or its first `limit` bytes, in blocks."""

    @abstractmethod
    def part(self, offset: int, size_bytes: int) -> Output:
        """Return a part of the content; raise a `ValueError` if it is not within it."""

    def read(self, limit: int | None = None) -> bytes:
        """Return the content, or its first `limit` bytes."""
        return b"".join(self.blocks(limit))

    def tail(self, limit: int) -> bytes:
        """Return the last `limit` bytes of the content."""
        size_bytes = min(limit, self.size_bytes)
        return self.part(self.size_bytes - size_bytes, size_bytes).read()

    def open(self) -> io.BufferedReader:
        """Return the content as a file."""
        return io.BufferedReader(_Reader(self))

    def check_part(self, offset: int, size_bytes: int) -> None:
        """Raise a `ValueError` if a part is not within the content."""
        if not 0 <= offset <= offset + size_bytes <= self.size_bytes:
            raise ValueError(f"{size_bytes} bytes at {offset} are not within {self.size_bytes} bytes")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Output) and self.size_bytes == other.size_bytes and self.read() == other.read()

    def __hash__(self) -> int:
        return hash(self.size_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class FileOutput(Output):
    """A part of a temporary file."""

    file: _File
    offset: int
    size_bytes: int

    def part(self, offset: int, size_bytes: int) -> FileOutput:
        """Return a part of the content; raise a `ValueError` if it is not within it."""
        self.check_part(offset, size_bytes)
        return FileOutput(self.file, self.offset + offset, size_bytes)

    def blocks(self, limit: int | None = None) -> Iterator[bytes]:
        """Yield the content, or its first `limit` bytes, in blocks."""
        offset = self.offset
        end = offset + (self.size_bytes if limit is None else min(limit, self.size_bytes))
        while offset < end:
            block = os.pread(self.file.handle, min(BLOCK_BYTES, end - offset), offset)
            if not block:
                raise OSError("a temporary file of topn was truncated")
            offset += len(block)
            yield block

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the content, because another process cannot read the file."""
        return (Output.of, (self.read(),))


class _Reader(io.RawIOBase):
    def __init__(self, output: Output) -> None:
        self._output = output
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._output.size_bytes}[whence]
        if start + offset < 0:
            raise ValueError(f"position {start + offset} is negative")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        size_bytes = max(min(len(buffer), self._output.size_bytes - self._position), 0)
        block = self._output.part(self._position, size_bytes).read() if size_bytes else b""
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)


class Outputs(Mapping[str, bytes]):
    """The outputs of a result by name. A content is read when it is accessed; `parts` gives access to parts of it."""

    # A run has one of these per file, and a dictionary takes more than twice the memory of a tuple.
    __slots__ = ("_items",)

    def __init__(self, parts: Mapping[str, Output]) -> None:
        self._items = tuple(parts.items())

    @property
    def parts(self) -> dict[str, Output]:
        """The outputs by name, in a new dictionary."""
        return dict(self._items)

    @classmethod
    def of(cls, contents: Mapping[str, bytes]) -> Outputs:
        """Write outputs to a temporary file."""
        scratch = Scratch()
        return cls({name: scratch.add([content]) for name, content in contents.items()})

    def __getitem__(self, name: str) -> bytes:
        return self.parts[name].read()

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)


class Scratch:
    """A temporary file to which outputs are added. It is deleted with the last of them."""

    def __init__(self) -> None:
        self._file = _File()
        self._lock = Lock()
        self._end = 0

    def add(self, blocks: Iterable[bytes]) -> Output:
        """Append an output.

        Raises:
            OSError: The file system of temporary files is full.
        """
        with self._lock:
            start = end = self._end
            for block in blocks:
                written = memoryview(block)
                while written:
                    count = os.pwrite(self._file.handle, written, end)
                    written, end = written[count:], end + count
            # After an error, the next output overwrites what was written of this one.
            self._end = end
            return FileOutput(self._file, start, end - start)
