"""Every error that the flow and its steps raise on purpose.

    TopnError
    ├── UsageError             an argument or an input file cannot be used; nothing was created
    ├── ConfigurationError     a setting is missing, contradicts another, or points nowhere
    ├── ServiceError           Azure refused a request, or did not answer (service, operation, code, transient)
    │   ├── NotFoundError      what the request names does not exist
    │   └── AlreadyExistsError what the request would create exists
    ├── ForeignResourceError   a name of this run exists, and is not this run's
    ├── OutputError            a result is known, and its output cannot be written
    └── FilesFailedError       the run ended, and some files have no result (report)

Each message is one sentence that says what, which, and what next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class TopnError(Exception):
    """Base of all errors here; its text is fit for a person."""


class UsageError(TopnError):
    """An argument or an input file cannot be used; nothing was created."""


class ConfigurationError(TopnError):
    """A setting is missing, contradicts another, or points nowhere; nothing was created."""


class ServiceError(TopnError):
    """Azure refused a request, or did not answer it.

    Attributes:
        service: "Batch" or "Storage".
        operation: What was asked, such as "create pool topn-…".
        code: The service's error code; where there was no answer, one of ours for the cause, or "".
        transient: Whether the same request may succeed later.
    """

    def __init__(self, message: str, *, service: str, operation: str, code: str = "", transient: bool = False) -> None:
        super().__init__(message)
        self.service = service
        self.operation = operation
        self.code = code
        self.transient = transient

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the attributes when the error travels through a stored Prefect state."""
        return (_restore_service_error, (type(self), str(self), dict(self.__dict__)))


class NotFoundError(ServiceError):
    """What the request names does not exist."""


class AlreadyExistsError(ServiceError):
    """What the request would create exists."""


class ForeignResourceError(TopnError):
    """A name that this run would use exists, and does not carry this run's metadata."""


class OutputError(TopnError):
    """Outputs cannot be written where they belong; the results are kept, and a run with another folder writes them."""


def _restore_service_error(kind: type[ServiceError], message: str, attributes: dict[str, object]) -> ServiceError:
    error = kind(message, service="", operation="")
    error.__dict__.update(attributes)
    return error
