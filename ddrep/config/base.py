"""What all sections of the configuration share: the base class, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

Positive = Annotated[int, Gt(0)]
Rate = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
Timestep = Annotated[float, Ge(0), Le(999)]


def _each_once(given: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [item for item in given if given.count(item) > 1]:
        raise ValueError(f"expected each once, {twice[0]} is there {given.count(twice[0])} times")
    return given


Once = AfterValidator(_each_once)
"""Of a list whose items make runs of a table: the same run twice would count as two."""
Subsets = Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1), Once]
Seeds = Subsets
Precision = Literal["auto", "fp32", "bf16"]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, and the text below a field is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Choice(Section):
    """Base of the sections in which `kind` names the sub-table that counts."""

    kind: str

    @model_validator(mode="after")
    def _has_its_table(self) -> Self:
        if getattr(self, self.table, self) is None:
            raise ValueError(self.without_table)
        return self

    @property
    def without_table(self) -> str:
        """The complaint where the sub-table that counts is not there."""
        return f"kind is {self.kind}: expected a table {self.table}; see config.yaml for its keys"

    @property
    def section(self) -> Any:
        """The sub-table that counts."""
        return getattr(self, self.table)

    @property
    def table(self) -> str:
        """Name of the sub-table that counts."""
        return self.kind.replace("-", "_")
