"""Types and defaults of the parameters of a run. The flow and the command line share them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from tasks.model.chunks import MAX_FILES_PER_TASK

# A signature that is made with a user delegation key is valid for at most 7 days:
# https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas
MAX_TIMEOUT_MINUTES = 6 * 24 * 60

DEFAULT_NUM_WORDS = 3
DEFAULT_OUTPUT_FOLDER = "results"
DEFAULT_TIMEOUT_MINUTES = 60
DEFAULT_BLOCK = "default"

Positive = Annotated[int, Field(ge=1)]
NotEmpty = Annotated[str, Field(min_length=1)]
FilesPerTask = Annotated[int, Field(ge=1, le=MAX_FILES_PER_TASK)]
TimeoutMinutes = Annotated[float, Field(ge=1, le=MAX_TIMEOUT_MINUTES)]
TaskMinutes = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_MINUTES)]
NodePrice = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Prefect allows no other names of blocks.
BlockName = Annotated[str, Field(pattern="^[a-z0-9-]+$")]
CostLimit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def describe_bounds(kind: Any) -> str:
    """Return what a value of a type is, such as "an integer from 1 to 100"."""
    schema = TypeAdapter(kind).json_schema()
    if "pattern" in schema:
        return f"a text that matches {schema['pattern']}"
    noun = {"integer": "an integer", "number": "a number"}.get(schema["type"], "a text with at least one character")
    low, above, high = (schema.get(bound) for bound in ("minimum", "exclusiveMinimum", "maximum"))
    if low is not None and high is not None:
        return f"{noun} from {low:,} to {high:,}"
    bounds = [(above, "above"), (low, "of at least"), (high, "at most")]
    limits = " and ".join(f"{words} {bound:,}" for bound, words in bounds if bound is not None)
    return f"{noun} {limits}".rstrip()
