"""What all sections of the configuration share: the base class, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict

Positive = Annotated[int, Gt(0)]
Rate = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
Timestep = Annotated[float, Ge(0), Le(999)]
Precision = Literal["auto", "fp32", "bf16"]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, and the text below a field is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
