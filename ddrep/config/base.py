"""What all sections of the configuration share: the base class, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

Positive = Annotated[int, Gt(0), Le(10**9)]
Natural = Annotated[int, Ge(0), Le(10**9)]
Pixels = Annotated[int, Gt(0), Le(2**13)]
"""A side of an image; and what is no larger: channels, units of a layer."""
Channels = Annotated[Literal[1, 3], BeforeValidator(lambda said: int(said) if said in ("1", "3") else said)]
"""Grey or colour; by hand a number comes as text, which Literal does not turn into one."""
Steps = Annotated[int, Gt(0), Le(10**7)]
"""Of training: the loss of each is kept."""
SolverSteps = Annotated[int, Ge(2), Le(10**6)]
"""As many as a schedule may have; how many a denoiser's has is known when it is read."""
Level = Annotated[int, Ge(0), Lt(10**6)]
"""An index into a schedule."""
Batch = Annotated[int, Gt(0), Le(2**16)]
Seed = Annotated[int, Ge(0), Le(2**63 - 1)]
"""What a generator takes."""
Few = Annotated[int, Gt(0), Le(1000)]
"""Of what a network or a figure has some."""
Attempts = Annotated[int, Gt(0), Le(10**6)]
Epochs = Annotated[int, Gt(0), Le(10**6)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Rate = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
Timestep = Annotated[float, Ge(0), Le(999)]
Block = Annotated[str, StringConstraints(pattern=r"^(middle|up\d{1,4}|output_blocks\.\d{1,4})$")]
Timesteps = Annotated[
    tuple[Timestep, ...],
    MinLen(1),
    Field(description="In embedded units, 0..1000 whatever the number of diffusion steps."),
]


def _each_once(given: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [item for item in given if given.count(item) > 1]:
        raise ValueError(f"expected each once, {twice[0]} is there {given.count(twice[0])} times")
    return given


Once = AfterValidator(_each_once)
"""Of a list whose items make runs of a table: the same run twice would count as two."""
Seeds = Annotated[tuple[Seed, ...], MinLen(1), Once]
Subsets = Annotated[Seeds, Field(description="Of the labelled images.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"], Field(description="fp32, bf16, or auto: bf16 where the hardware multiplies in it.")
]
Noise = Annotated[
    Literal["none", "fixed"],
    Field(description="none feeds the clean image (published code); fixed noises it to t by one fixed noise first."),
]
Flip = Annotated[bool, Field(description="Random left-right flips.")]
Clip = Annotated[float, Ge(0), Field(description="Largest norm of the gradient; 0 does not clip.")]
Warmup = Annotated[int, Ge(0), Le(10**7), Field(description="Steps in which the learning rate rises.")]
WeightDecay = Annotated[float, Ge(0)]


def _are_texts(value: Any) -> bool:
    """Whether all strings in a value, or in a list, can be names of files; those of any encoding can."""
    if isinstance(value, list | tuple):
        return all(map(_are_texts, value))
    if not isinstance(value, str):
        return True
    try:
        return b"\0" not in value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """`overlay` over `base`, deeply for tables and whole for everything else, as Snakemake's --configfile does."""
    tables = {k for k, v in overlay.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **overlay, **{k: merge(base[k], overlay[k]) for k in tables}}


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, and the text below a field is its help.

    Of a table that is given in part the other settings are those of its default, as with overlays on config.yaml.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
    LATER: ClassVar[tuple[str, ...]] = ()
    """Settings that came later. What stages are told leaves them out at their defaults: what was made before there were
    such settings is not planned again."""

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        left_out = self._left_out()
        return {key: value for key, value in handler(self).items() if key not in left_out}

    def _left_out(self) -> set[str]:
        """What stages are not told."""
        return {name for name in self.LATER if getattr(self, name) == type(self).model_fields[name].default}

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if odd := [name for name, value in given.items() if not _are_texts(value)]:
            name = str(odd[0]).encode("utf-8", "backslashreplace").decode()
            raise ValueError(f"{name}: a character that no text or name of a file has")
        if odd := [name for name, value in given.items() if isinstance(value, bool) and not cls._may_be(name, bool)]:
            raise ValueError(f"{odd[0]}: expected no truth value, which yes, no, on and off are in YAML")
        tables = {name: field.default for name, field in cls.model_fields.items() if name in given}
        return merge({name: t.model_dump() for name, t in tables.items() if isinstance(t, BaseModel)}, given)

    @classmethod
    def _may_be(cls, name: str, kind: type) -> bool:
        field = cls.model_fields.get(name)
        return field is None or kind in (field.annotation, *get_args(field.annotation))


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
