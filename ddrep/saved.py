"""What a file of weights says of itself: one typed model a kind of file, read and written here.

Without torch until weights are wanted, for settings are held against files before anything runs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from ddrep.config import explain
from ddrep.config.base import Section
from ddrep.errors import UserError
from ddrep.files import load_tensors, read_metadata, save_tensors, written_whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    N = TypeVar("N", bound=nn.Module)

LONGEST = 400
"""Characters that a message quotes of a header, which may be anything."""


class Described(BaseModel):
    """Base of a part of what a file says: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Saved(Described):
    """Base of what a file says: each field is a string of its safetensors metadata, text as it is, all else as JSON."""

    FORMAT: ClassVar[str] = ""
    """Which kind of file it is; empty for one that does not say."""
    WHAT: ClassVar[str]
    """Such a file in messages, as in "a denoiser"."""
    HOW: ClassVar[str]
    """How one is made."""

    @classmethod
    def expected(cls) -> str:
        return f"{cls.WHAT}; {cls.HOW}"

    @classmethod
    def parsed(cls, path: Path, text: Mapping[str, str]) -> Self:
        """Of the metadata of a file. Raises UserError naming the file, the key and what was expected."""
        key, given = "", {}
        try:
            for key, field in cls.model_fields.items():
                if key in text:
                    given[key] = text[key] if field.annotation is str else from_json(text[key])
            return cls.model_validate(given)
        except ValidationError as e:
            why = explain(e)
        except ValueError as e:  # no JSON, or one nested too deeply
            why = f"{key}: {e}"
        said = " ".join(why.split())[:LONGEST]
        raise UserError(f"{path}: {cls.WHAT} with a broken header ({said}); {cls.HOW}")

    def text(self) -> dict[str, str]:
        """The metadata; equal models give equal strings, those that files have always had."""
        fields = {name: _spelled(getattr(self, name)) for name in type(self).model_fields}
        return {"format": self.FORMAT, **fields} if self.FORMAT else fields


def _spelled(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Section):
        return value.model_dump_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return json.dumps(dataclasses.asdict(value))
    if isinstance(value, BaseModel):  # what need not be there is not written as null
        wanted = type(value).model_fields
        value = {k: v for k, v in value.model_dump().items() if v is not None or wanted[k].is_required()}
    return json.dumps(value, sort_keys=True)


S = TypeVar("S", bound=Saved)


def save(path: Path, content: Saved, weights: Mapping[str, Tensor]) -> None:
    """Write a file, whole or not at all."""
    with written_whole(path) as (draft,):
        save_tensors(weights, draft, content.text())


def header(path: Path, kind: type[S]) -> S:
    """What a file says of itself; no weights are read, and no torch is imported. Raises UserError for other files."""
    return kind.parsed(path, read_metadata(path, kind.FORMAT, kind.expected()))


def load(path: Path, kind: type[S], build: Callable[[S], N], device: str | torch.device = "cpu") -> tuple[S, N]:
    """What a file says, and the network that `build` makes of that with the file's weights, in evaluation mode.

    Raises UserError for any other file, and for weights that are not those of the network or not finite.
    """
    import torch

    weights, text = load_tensors(path, kind.FORMAT, kind.expected())
    content = kind.parsed(path, text)
    try:
        with torch.device("meta"):  # nothing is computed for sizes that the weights do not have
            net = build(content)
    except UserError as e:
        raise UserError(f"{path}: {e}; {kind.HOW}") from None
    if fault := next(_faults(net.state_dict(), weights), None):
        raise UserError(f"{path}: {fault}; {kind.HOW}")
    net.to_empty(device=device).load_state_dict(weights)
    return content, net.eval().requires_grad_(False)


def _faults(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Why the weights are not those of a network, whose own tensors are `expected`."""
    for name, tensor in expected.items():
        if name not in weights:
            yield f"no tensor {name}, which such a network has"
        elif weights[name].shape != tensor.shape:
            yield f"{name} is {tuple(weights[name].shape)}, expected {tuple(tensor.shape)} by the header"
        elif not weights[name].isfinite().all():
            yield f"{name} has values that are not finite"
    yield from (f"a tensor {name[:LONGEST]}, which no such network has" for name in weights if name not in expected)
