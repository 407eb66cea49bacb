"""Errors that the flow and its steps raise.

    TopnError
    ├── UsageError             an argument or an input file is invalid; nothing was created
    ├── ConfigurationError     a setting is missing or invalid, or contradicts another; nothing was created
    ├── ServiceError           Azure rejected a request, or did not answer (service, operation, code, transient)
    │   ├── NotFoundError      the requested resource does not exist
    │   └── AlreadyExistsError the resource to create already exists
    ├── ForeignResourceError   a resource with a name of this run belongs to something else
    ├── PrefectServerError     the Prefect server failed during the run
    ├── OutputError            outputs cannot be written; their results are stored
    └── FilesFailedError       the run ended, and some files have no result (report)

Each message describes the problem, with the value that causes it, and what to do.
"""

from __future__ import annotations

from tasks.text import printable

# Error codes of Storage: the condition of a request does not hold, and the container does not exist.
CONDITION_NOT_MET = "ConditionNotMet"
CONTAINER_NOT_FOUND = "ContainerNotFound"


class TopnError(Exception):
    """Base class of all errors of topn. Its message is one printable line for users."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UsageError(TopnError):
    """An argument or an input file is invalid. Nothing was created."""


class ConfigurationError(TopnError):
    """A setting is missing or invalid, or contradicts another. Nothing was created."""


class ServiceError(TopnError):
    """Azure rejected a request, or did not answer it.

    Attributes:
        service: "Batch" or "Storage".
        operation: The request in words, for example "create pool topn-…".
        code: Error code of the service. If the service did not answer, it is topn's own code for the cause, or "".
        transient: Whether a retry of the request can succeed.
    """

    def __init__(self, message: str, *, service: str, operation: str, code: str = "", transient: bool = False) -> None:
        super().__init__(message)
        self.service = service
        self.operation = operation
        self.code = code
        self.transient = transient

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the error with its attributes, since Prefect stores it in the state of a run."""
        return (_restore_service_error, (type(self), str(self), dict(self.__dict__)))


class NotFoundError(ServiceError):
    """The requested resource does not exist."""


class AlreadyExistsError(ServiceError):
    """The resource to create already exists."""


class ForeignResourceError(TopnError):
    """A resource with a name of this run exists, but its metadata is not from this run."""


class PrefectServerError(TopnError):
    """The Prefect server failed during the run."""


class OutputError(TopnError):
    """Outputs cannot be written to the output folder. A run with another folder writes them from the stored results."""


def _restore_service_error(
    error_class: type[ServiceError], message: str, attributes: dict[str, object]
) -> ServiceError:
    error = error_class(message, service="", operation="")
    error.__dict__.update(attributes)
    return error
