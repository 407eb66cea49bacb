"""The base class of what is started and stopped: a Batch account and a local Azure."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Running(ABC):
    """A context manager around `start` and `stop`. `start` fills `_closing` with what undoes it."""

    def __init__(self) -> None:
        self._closing = contextlib.ExitStack()

    @abstractmethod
    def start(self) -> None:
        """Start, and return when it answers."""

    def stop(self) -> None:
        """Stop, and return when nothing is left."""
        self._closing.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
