"""What dataclasses need to check the types of their fields, for values that come from a service."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

# Text that is not empty, such as an id.
Text = Annotated[str, Field(min_length=1)]

# A field of another type raises a `ValueError`; nothing is converted.
STRICT = ConfigDict(strict=True)
